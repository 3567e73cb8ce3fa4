"""The summary of a job is the same whichever way it is read, and counts as the worker does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker.cli.job_summary import Tally, newest_jobs, read_jobs
from worker.sync.result import ending

KEPT = {"AGENTS.md": {"action": "unchanged"}, "USER.md": {"action": "preserved"}}
WRITTEN = {**KEPT, "SOUL.md": {"action": "update"}}
MAIN = {"position": None, "status": "succeeded", "files": WRITTEN}
ENDED: tuple[Mapping[str, Any], ...] = (
    {"status": "succeeded", "files": KEPT},
    {"status": "succeeded", "files": WRITTEN},
    {"status": "succeeded", "files": KEPT, "roster": {"action": "update"}},
    {"status": "succeeded", "files": KEPT, "roster": {"action": "unchanged"}},
    {"status": "failed", "phase": "files", "reason": "No."},
    {"status": "skipped", "phase": "files", "reason": "No token."},
    {"status": "skipped", "phase": "paused", "reason": "Its board is paused."},
    {"status": "skipped", "phase": "deleted", "reason": "It was deleted."},
    {"status": "not_attempted", "reason": "The gateway is away."},
    {"status": "cancelled"},
)


def add_sync(engine: Engine, *agents: Mapping[str, Any]) -> UUID:
    """A sync with these rows, one after another unless they have another ``position``."""
    key = uuid4()
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO provisioner.jobs (id, kind, status, gateway_id, created_at)"
                " VALUES (:id, 'sync_gateway', 'running', :gateway, now())"
            ),
            {"id": key, "gateway": uuid4()},
        )
        for number, columns in enumerate(agents):
            values: dict[str, Any] = {"position": number, "phase": None, "reason": None, "roster": None}
            values |= {"files": {}, "held": False, **columns}
            values |= {"job": key, "agent": uuid4(), "name": f"Agent {number}"}
            values |= {"files": json.dumps(values["files"]), "roster": json.dumps(values["roster"])}
            values["over"] = values["status"] not in ("pending", "running")
            connection.execute(
                text(
                    "INSERT INTO provisioner.job_agents (job_id, agent_id, agent_name, position, status,"
                    " phase, reason, files, roster, lease_until, finished_at) VALUES (:job, :agent, :name,"
                    " :position, :status, :phase, :reason, CAST(:files AS jsonb), CAST(:roster AS jsonb),"
                    " CASE WHEN :held THEN now() + interval '30 s' END, CASE WHEN :over THEN now() END)"
                ),
                values,
            )
    return key


LONG = '{"x": ' + "9" * 5000 + "}"
ODD: tuple[Mapping[str, Any], ...] = (
    {"created_at": "infinity"},
    {"created_at": "0044-03-15 BC", "started_at": "-infinity", "finished_at": "20000-01-01"},
    {"options": LONG, "result": LONG, "warnings": LONG},
    {"options": "[" * 5000 + "]" * 5000},
    {"options": "[1]", "result": '"x"', "warnings": '{"a": 1}'},
)


def test_what_a_service_wrote_oddly_is_shown_and_hides_no_other_job(
    provisioner: Provisioner, engine: Engine
) -> None:
    keys = [add_sync(engine, MAIN) for _ in range(len(ODD) + 1)]
    for key, columns in zip(keys, ODD, strict=False):
        kinds = {name: "timestamptz" if name.endswith("_at") else "jsonb" for name in columns}
        assignments = ", ".join(f"{name} = CAST(:{name} AS {kind})" for name, kind in kinds.items())
        with engine.begin() as connection:
            statement = text(f"UPDATE provisioner.jobs SET {assignments} WHERE id = :id")
            connection.execute(statement, {"id": key, **columns})
    assert {job["id"] for job in provisioner.json("jobs")} == {str(key) for key in keys}
    listed = provisioner.run("jobs")
    assert (listed.exit_code, all(str(key)[:8] in listed.stdout for key in keys)) == (0, True)
    for key in keys:
        shown = provisioner.json("job", str(key))
        assert (shown["options"], shown["result"], shown["warnings"]) == ({}, None, [])
        assert provisioner.run("job", str(key)).exit_code == 0


def tally_of(engine: Engine, key: UUID, **options: Any) -> Tally:
    with engine.connect() as connection:
        return read_jobs(connection, [key], **options)[0].tally


def test_the_figures_are_those_of_the_result(engine: Engine) -> None:
    key = add_sync(engine, *ENDED, MAIN)
    with engine.connect() as connection:
        (job,) = read_jobs(connection, [key])
    tally = job.tally
    result = ending(uuid4(), "g", {"include_main": True}, [agent.row for agent in job.agents]).result
    assert (tally.total, tally.done) == (len(ENDED), len(ENDED))
    assert tally.changed + tally.unchanged == result["agents_updated"] == 4
    assert tally.unchanged == result["agents_unchanged"] == 2
    assert tally.skipped + tally.paused == result["agents_skipped"] == 3
    assert tally.paused == 1
    assert tally.failed == result["agents_failed"] == 1
    assert tally.not_attempted == result["not_attempted"] == 1
    assert tally.cancelled == result["agents_cancelled"] == 1
    assert (tally.main, tally.in_hand, tally.waiting) == ("succeeded", 0, 0)
    assert [agent.name for agent in tally.failures] == ["Agent 4", "Agent 5"]


def test_who_is_at_work_and_what_others_wait_for_is_counted_and_named(engine: Engine) -> None:
    held = {"status": "running", "phase": "files", "held": True}
    waits = {"status": "running", "phase": "roster", "reason": "waiting for the roster writer"}
    key = add_sync(
        engine, held, waits, {"status": "pending"}, held, waits, {**MAIN, **held, "position": None}
    )
    tally = tally_of(engine, key, at_work=2)
    assert (tally.total, tally.done, tally.in_hand, tally.main) == (5, 0, 3, "running")
    assert (tally.waiting, tally.waits_for) == (2, "waiting for the roster writer")
    assert [(agent.name, agent.what) for agent in tally.at_work] == [
        ("Agent 0", "files"),
        ("Agent 3", "files"),
    ]


def test_a_sync_that_is_watched_comes_without_its_agents_and_with_the_same_figures(engine: Engine) -> None:
    key = add_sync(engine, *ENDED, MAIN)
    with engine.connect() as connection:
        (whole,) = read_jobs(connection, [key])
        (watched,) = read_jobs(connection, [key], whole=False)
    assert (len(whole.agents), watched.agents) == (len(ENDED) + 1, ())
    assert watched.tally == whole.tally


def test_a_job_about_one_agent_counts_it(engine: Engine) -> None:
    key = add_sync(engine, {"position": None, "status": "failed", "reason": "No."})
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE provisioner.jobs SET kind = 'update_agent' WHERE id = :id"), {"id": key}
        )
    tally = tally_of(engine, key, whole=False)
    assert (tally.total, tally.failed, tally.main) == (1, 1, None)


def test_a_job_counts_the_most_tries_and_crashes_of_itself_and_its_agents(engine: Engine) -> None:
    key = add_sync(engine, *({"status": "pending"} for _ in range(3)))
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE provisioner.job_agents SET tries = 4 * position, attempts = position,"
                " crashes = position WHERE position < 2"
            )
        )
        connection.execute(text("UPDATE provisioner.jobs SET tries = 1, attempts = 2, crashes = 2"))
        (whole,) = read_jobs(connection, [key])
        (watched,) = read_jobs(connection, [key], whole=False)
        (listed,) = newest_jobs(connection, status=None, limit=1)
    assert {(job.tries, job.crashes) for job in (whole, watched, listed)} == {(4, 2)}
    assert [(agent.tries, agent.crashes) for agent in whole.agents] == [(0, 0), (4, 1), (0, 0)]
