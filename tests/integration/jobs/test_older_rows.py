"""What rows of workers before v0.3.0 say is read by their sentences, also where two releases share a row."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from tests.integration.agents.fleet import execute, insert_job, one, seed_fleet
from worker.cli.job_summary import read_jobs
from worker.errors import PermanentError
from worker.jobs.store import codes
from worker.jobs.store.job_agents import Claim, claim
from worker.jobs.store.retrying import retry
from worker.roster.intents import intent_states


def row(engine: Engine, **columns: object) -> UUID:
    """A job with one agent's row that holds these columns."""
    agent_id = seed_fleet(engine).agent_id
    job_id = insert_job(engine, agent_id)
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    execute(
        engine,
        f"INSERT INTO provisioner.job_agents (job_id, agent_id, {names}, finished_at) VALUES (:job, :agent,"
        f" {values}, CASE WHEN :status NOT IN ('pending', 'running') THEN now() END)",
        job=job_id,
        agent=agent_id,
        **columns,
    )
    return job_id


def read(engine: Engine, job_id: UUID) -> tuple[str | None, str | None]:
    """The row's reason code and outcome, as every reader gets them."""
    statement = f"SELECT {codes.reason_code('r')}, {codes.outcome('r')} FROM provisioner.job_agents r"
    with engine.connect() as connection:
        found = connection.execute(text(f"{statement} WHERE job_id = :id"), {"id": job_id}).one()
    return found[0], found[1]


@pytest.mark.parametrize(
    ("status", "phase", "reason", "code", "outcome"),
    [
        ("skipped", "paused", "Its board 'B' is paused.", "board_paused", "paused"),
        ("skipped", "deleted", "It was deleted meanwhile.", "agent_deleted", "deleted"),
        (
            "skipped",
            "deleted",
            "Agent 'A' was put on gateway 'g' meanwhile: ask again.",
            "agent_moved",
            "deleted",
        ),
        (
            "skipped",
            "looked",
            "It is not in its gateway's roster, so it holds no token there: provision it, or run again.",
            "not_registered",
            None,
        ),
        ("skipped", "files", "It holds no token: run again with rotate_tokens.", "no_token", None),
        (
            "failed",
            "files",
            "The gateway was unreachable for 10 minutes. x",
            "gateway_unreachable",
            None,
        ),
        ("failed", "files", "Given up after 600 seconds: x", "retries_exhausted", None),
        (
            "failed",
            "files",
            "Given up: 3 workers died while at work on it, x.",
            "worker_crashes",
            None,
        ),
        ("failed", "files", "Internal error (KeyError): see the worker's log.", "internal_error", None),
        ("failed", "intent", "The SOUL.md override, line 1: a loop.", "broken_soul_template", None),
        ("failed", "intent", "The IDENTITY.md override, line 1: x.", "broken_identity_template", None),
        ("failed", "roster", "A config write would rewrite what x wrote.", "rewrite_refused", None),
        ("failed", "files", "Gateway 'g' does not accept our token.", "gateway_refused", None),
        ("failed", "files", "Something else.", None, None),
        ("cancelled", "files", "Cancelled on request.", "cancelled", None),
        ("succeeded", "ended", None, None, None),
        ("running", "wake", "being woken", "being_woken", None),
        ("running", "files", "gateway 'g' is down: refused", "waiting_for_gateway", None),
        ("running", "files", "no answer", "transient_error", None),
        ("running", "files", None, None, None),
        ("pending", "roster", None, "waiting_for_roster", None),
    ],
)
def test_a_row_without_codes_is_read_by_its_sentence(
    engine: Engine, status: str, phase: str, reason: str | None, code: str | None, outcome: str | None
) -> None:
    assert read(engine, row(engine, status=status, phase=phase, reason=reason)) == (code, outcome)


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ("failed", "Given up after 600 seconds: x", "retries_exhausted"),
        ("failed", "Something else.", None),
        ("succeeded", None, None),
        ("running", None, None),
    ],
)
def test_a_wait_that_an_older_worker_left_standing_is_not_taken_for_the_code(
    engine: Engine, status: str, reason: str | None, code: str | None
) -> None:
    """It claims a row that this version parked, and ends it with a sentence alone."""
    job_id = row(engine, status=status, phase="files", reason=reason, reason_code="worker_stopping")
    assert read(engine, job_id)[0] == code


def test_a_code_goes_before_the_sentence(engine: Engine) -> None:
    ended = row(engine, status="failed", phase="files", reason="At the gateway.", reason_code="no_token")
    waiting = row(
        engine, status="running", phase="roster", reason="It is late.", reason_code="waiting_for_gateway"
    )
    assert [read(engine, key)[0] for key in (ended, waiting)] == ["no_token", "waiting_for_gateway"]


@pytest.mark.parametrize(
    ("error", "reason_code", "code"),
    [
        (None, None, None),
        (None, "left_over", None),
        ("The gateway was unreachable for 10 minutes. x", None, "gateway_unreachable"),
        ("Cancelled on request.", None, "cancelled"),
        ("Something else.", None, None),
        ("At the gateway.", "permanent_error", "permanent_error"),
    ],
)
def test_an_intent_that_an_older_roster_writer_refused_is_read_by_its_sentence(
    engine: Engine, error: str | None, reason_code: str | None, code: str | None
) -> None:
    fleet = seed_fleet(engine)
    job_id, columns = uuid4(), {"error": error, "reason_code": reason_code}
    execute(
        engine,
        "INSERT INTO provisioner.roster_intents (gateway_id, agent_id, job_id, change, openclaw_id, error,"
        " reason_code) VALUES (:gateway, :agent, :job, 'reconcile', 'x', :error, :reason_code)",
        gateway=fleet.gateway_id,
        agent=fleet.agent_id,
        job=job_id,
        **columns,
    )
    with engine.begin() as connection:
        [state] = intent_states(connection, job_id, fleet.agent_id, "reconcile")
    assert (state.error, state.reason_code) == (error, code)


@pytest.mark.parametrize(
    ("columns", "undone"),
    [
        ({"phase": "paused"}, False),
        ({"phase": "deleted"}, False),
        ({"phase": "files"}, True),
        ({"phase": "files", "outcome": "moved"}, False),
    ],
)
def test_a_retry_goes_by_the_outcome_and_without_one_by_the_phase(
    engine: Engine, columns: dict[str, str], undone: bool
) -> None:
    gateway_id, job_id = seed_fleet(engine).gateway_id, uuid4()
    execute(
        engine,
        "INSERT INTO provisioner.jobs (id, kind, status, gateway_id, options, finished_at) VALUES"
        " (:id, 'sync_gateway', 'partial', :gateway, '{\"include_main\": false}', now())",
        id=job_id,
        gateway=gateway_id,
    )
    values = {"phase": None, "outcome": None, **columns}
    execute(
        engine,
        "INSERT INTO provisioner.job_agents (job_id, agent_id, status, position, finished_at, phase, outcome)"
        " VALUES (:id, gen_random_uuid(), 'skipped', 1, now(), :phase, :outcome)",
        id=job_id,
        **values,
    )
    with engine.begin() as connection:
        if undone:
            assert retry(connection, job_id, requested_by=None)
        else:
            with pytest.raises(PermanentError, match="left no agent undone"):
                retry(connection, job_id, requested_by=None)


def test_what_a_running_job_waits_for_is_read_from_what_all_versions_write(engine: Engine) -> None:
    """An older worker parks it again with another trouble, and leaves the one before in ``wait_reason``."""
    job_id = insert_job(engine, seed_fleet(engine).agent_id)
    execute(
        engine,
        "UPDATE provisioner.jobs SET status = 'running', error = 'now', wait_reason = 'before'"
        " WHERE id = :id",
        id=job_id,
    )
    statement = text(f"SELECT {codes.wait_reason('j')} FROM provisioner.jobs j WHERE id = :id")
    with engine.connect() as connection:
        assert connection.execute(statement, {"id": job_id}).scalar_one() == "now"


def test_crashes_that_an_older_worker_counted_are_counted_on(engine: Engine) -> None:
    """It counts under the other name alone, and so may claim a row between two workers that know both."""
    job_id = row(engine, status="running", attempts=2, crashes=1)
    lost = "lease_until = now() - interval '1 s', published_at = now()"
    execute(engine, f"UPDATE provisioner.job_agents SET {lost}")
    execute(engine, "UPDATE provisioner.jobs SET status = 'running'")

    def told() -> tuple[int, int]:
        with engine.connect() as connection:
            (job,) = read_jobs(connection, [job_id])
        return job.crashes, job.agents[0].crashes

    assert told() == (2, 2)
    agent_id = one(engine, "SELECT agent_id FROM provisioner.job_agents").agent_id
    held = claim(engine, job_id, agent_id, "provision_agent", lease_s=5)
    assert isinstance(held, Claim)
    assert held.crashes == 3
    assert told() == (3, 3)
    assert one(engine, "SELECT attempts FROM provisioner.job_agents").attempts == 3
