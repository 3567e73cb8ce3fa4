"""Cancel and retry (decisions.md D6), step by step: what ends when, and what a new job is about."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.errors import PermanentError
from worker.jobs.outbox import publish_due
from worker.jobs.store import sync_rows
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.retrying import retry

pytestmark = on_one_release


def stop(scene: Scene, job_id: UUID) -> bool:
    with scene.engine.begin() as connection:
        return cancel(connection, job_id)


def again(scene: Scene, job_id: UUID) -> Any:
    """Retry, served to its end; the new job."""
    with scene.engine.begin() as connection:
        new = retry(connection, job_id, requested_by="test")
    scene.serve()
    return scene.job(new)


def refused(scene: Scene, job_id: UUID) -> str:
    with scene.engine.begin() as connection, pytest.raises(PermanentError) as failure:
        retry(connection, job_id, requested_by="test")
    return str(failure.value)


def ask(scene: Scene, **options: Any) -> UUID:
    return scene.ask("sync_gateway", gateway_id=scene.fleet.gateway_id, **options)


def queued(scene: Scene, kind: str, **columns: Any) -> UUID:
    key = uuid4()
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", :{name}" for name in columns)
    scene.execute(
        f"INSERT INTO provisioner.jobs (id, kind{names}) VALUES (:id, :kind{values})",
        id=key,
        kind=kind,
        **columns,
    )
    return key


def test_an_agent_that_was_marked_before_its_cancelled_job_began_is_offline(settled: Scene) -> None:
    agent_id = settled.agent("Marked", status="provisioning", provision_action="provision")
    job_id = queued(settled, "provision_agent", agent_id=agent_id)
    assert stop(settled, job_id) is True
    row = settled.row("SELECT status, provision_action FROM agents WHERE id = :id", id=agent_id)
    assert (row.status, row.provision_action) == ("offline", None)


def test_a_queued_job_is_cancelled_at_once_and_its_message_finds_nothing(settled: Scene) -> None:
    job = queued(settled, "sync_gateway", gateway_id=settled.fleet.gateway_id)
    publish_due(settled.engine, settled.send)
    assert stop(settled, job) is True
    with settled.counting() as costs:
        settled.serve()
    assert costs.calls == {}
    row = settled.job(job)
    assert (row.status, row.error, row.next_attempt_at) == ("cancelled", "Cancelled on request.", None)
    assert row.finished_at is not None


def test_what_has_ended_stays_as_it_is(settled: Scene) -> None:
    job = settled.sync()
    with settled.engine.begin() as connection, pytest.raises(PermanentError, match="succeeded"):
        cancel(connection, job.id)
    assert settled.job(job.id).status == "succeeded"


def test_a_sync_ends_between_two_agents_and_retry_does_the_rest(
    settled: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_rows, "MOST_OPEN_ROWS", 2)
    settled.execute("UPDATE boards SET objective = 'Anew.'")
    job = ask(settled)
    for _ in range(3):  # the look, and the first two agents
        settled.one()
    assert stop(settled, job) is False
    assert stop(settled, job) is False  # asking twice does no harm
    settled.serve()
    ended = settled.job(job)
    rows = settled.rows(job)
    states = sorted(row.status for row in rows.values())
    assert states == ["cancelled"] * 4 + ["succeeded"] * 2
    assert (ended.status, ended.agents_done, ended.agents_total) == ("cancelled", 5, 5)
    assert (ended.result["agents_updated"], ended.result["main_updated"]) == (2, False)
    written = {name for name, row in rows.items() if row.status == "succeeded"}
    touched = settled.row(
        "SELECT count(DISTINCT agent_id) FROM provisioner.agent_files WHERE job_id = :id", id=job
    )
    assert touched[0] == len(written) == 2
    done = again(settled, job)
    assert (done.status, done.parent_job_id, done.requested_by) == ("succeeded", job, "test")
    assert set(settled.rows(done.id)) == set(rows) - written
    assert (done.result["agents_updated"], done.result["main_updated"]) == (3, True)
    assert done.result["agents_unchanged"] == 0
    assert settled.sync().result["files_written"] == 0


def test_a_sync_that_waits_for_the_roster_withdraws_its_intents(settled: Scene) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
    job = ask(settled)
    settled.one()
    assert settled.job(job).phase == "roster"
    assert stop(settled, job) is False
    with settled.counting() as costs:
        settled.serve()
    assert costs.calls["config.patch"] == 0
    assert {row.status for row in settled.rows(job).values()} == {"cancelled"}
    assert settled.job(job).status == "cancelled"
    assert again(settled, job).result["roster_changes"] == 6


def test_a_cancel_that_comes_too_late_leaves_the_job_succeeded(settled: Scene) -> None:
    settled.change_boards()
    job = ask(settled, include_main=False)
    settled.one()
    while settled.job(job).agents_done < 5:
        settled.one()
    assert stop(settled, job) is False
    settled.serve()
    assert settled.job(job).status == "succeeded"


def test_a_job_about_one_agent_that_is_parked_ends_at_its_next_execution(settled: Scene) -> None:
    agent = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}' WHERE id = :id""", id=agent)
    job = settled.ask("update_agent", agent_id=agent)
    settled.one()
    assert settled.rows(job)["Ann 0"].phase == "roster"
    assert stop(settled, job) is False
    with settled.counting() as costs:
        settled.serve()
    assert (settled.job(job).status, costs.calls["config.patch"]) == ("cancelled", 0)
    assert settled.row("SELECT status FROM agents WHERE id = :id", id=agent).status == "online"
    assert again(settled, job).status == "succeeded"


def test_one_that_waits_for_another_job_on_its_agent_ends_without_it(settled: Scene) -> None:
    agent = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}' WHERE id = :id""", id=agent)
    first, second = (settled.ask("update_agent", agent_id=agent) for _ in range(2))
    settled.one()
    settled.one()
    assert settled.rows(second)["Ann 0"].status == "pending"
    assert stop(settled, second) is True
    assert settled.job(second).status == "cancelled"
    settled.serve()
    assert settled.job(first).status == "succeeded"


def test_heartbeats_that_wait_for_the_roster_end_with_their_rows(settled: Scene) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
    job = queued(settled, "sync_heartbeats", gateway_id=settled.fleet.gateway_id)
    settled.begin_heartbeats(job)
    assert stop(settled, job) is True
    with settled.counting() as costs:
        settled.serve()
    assert costs.calls["config.patch"] == 0
    assert (settled.job(job).status, settled.job(job).result["updated"]) == ("cancelled", 0)
    assert {row.status for row in settled.rows(job).values()} == {"cancelled"}


def test_retry_is_about_those_that_were_not_well_and_nobody_else(settled: Scene) -> None:
    settled.execute("UPDATE agents SET soul_template = '{{ nobody }}' WHERE name = 'Ann 0'")
    settled.execute("UPDATE agents SET agent_token_hash = 'pbkdf2_sha256$1$AA$AA' WHERE name = 'Bob 0'")
    job = settled.sync(overwrite=True)
    assert job.status == "partial"
    settled.execute("UPDATE agents SET soul_template = NULL, agent_token_hash = NULL")
    done = again(settled, job.id)
    assert done.status == "succeeded"
    assert set(settled.rows(done.id)) == {"Ann 0", "Bob 0"}
    assert (done.options["include_main"], done.options["overwrite"]) == (False, True)
    assert "succeeded" in refused(settled, done.id)


def test_a_main_agent_that_was_not_there_is_asked_for_again(scene: Scene) -> None:
    scene.provision(scene.agent("Ann"))
    job = scene.sync()
    assert job.status == "partial"
    assert again(scene, job.id).status == "failed"
    main = scene.main()
    scene.provision(main)
    done = again(scene, job.id)
    assert (done.status, done.result["main_updated"], done.agents_total) == ("succeeded", True, 0)


def test_a_paused_agent_is_nothing_to_retry_and_an_open_job_is_not_opened_twice(settled: Scene) -> None:
    first = ask(settled)
    settled.one()
    assert "running" in refused(settled, first)
    stop(settled, first)
    settled.serve()
    with settled.engine.begin() as connection:
        retry(connection, first, requested_by=None)
    assert "is being done again" in refused(settled, first)


def test_a_request_that_was_refused_would_be_again(settled: Scene) -> None:
    job = queued(settled, "provision_agent")
    settled.serve()
    assert settled.job(job).status == "failed"
    assert "agent_id is missing" in refused(settled, job)
