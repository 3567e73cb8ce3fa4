"""A sync compares its agents with what is on record of them; what becomes of those that need nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.agents import workspace_plan
from worker.gateway import workspace_looks
from worker.jobs.outbox import publish_due
from worker.jobs.retry_policy import Snooze
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import Delay, Drop, busy
from worker.records import agent_repository
from worker.sync import comparison
from worker.sync.execution import execute_sync

pytestmark = on_one_release
LISTING = "agents.workspace.list"


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen once, after the gateway was asked and before the answers count."""

    def arrange(happens: Callable[[], None]) -> None:
        look_at, todo = workspace_looks.look_at, [happens]

        def watched(*arguments: Any) -> Any:
            seen = look_at(*arguments)
            while todo:
                todo.pop()()
            return seen

        monkeypatch.setattr(comparison, "look_at", watched)

    return arrange


def begun(scene: Scene, **options: Any) -> Any:
    """A sync that has looked at its agents, and at nothing else yet."""
    job_id = scene.ask("sync_gateway", gateway_id=scene.fleet.gateway_id, include_main=False, **options)
    scene.one()
    return job_id


def statuses(scene: Scene, job_id: Any) -> dict[str, str]:
    return {name: row.status for name, row in scene.rows(job_id).items()}


def _openclaw_id(scene: Scene, name: str) -> str:
    key = scene.row("SELECT openclaw_session_id AS key FROM agents WHERE name = :name", name=name).key
    return str(key).split(":")[1]


def test_an_agent_that_another_job_took_meanwhile_is_left_to_its_own_row(
    settled: Scene, meanwhile: Callable[..., None]
) -> None:
    ann = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id

    def rotate() -> None:
        job_id = settled.ask("update_agent", agent_id=ann, rotate_tokens=True, wake=False)
        settled.serve_until_ended(job_id)
        assert settled.job(job_id).status == "succeeded"

    meanwhile(rotate)
    job_id = begun(settled)
    assert [name for name, status in statuses(settled, job_id).items() if status == "pending"] == ["Ann 0"]
    settled.serve()
    assert settled.job(job_id).result["agents_unchanged"] == 5


def test_so_is_one_that_another_job_holds(settled: Scene, meanwhile: Callable[..., None]) -> None:
    ann = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}' WHERE id = :id""", id=ann)
    waiting = settled.ask("update_agent", agent_id=ann)
    settled.one()  # it waits for the roster writer, and holds the agent
    settled.execute("""UPDATE agents SET heartbeat_config = NULL WHERE id = :id""", id=ann)
    writer = [message for message in settled.messages if message[0] == "tasks.write_roster"]
    settled.messages.clear()
    job_id = begun(settled)
    assert statuses(settled, job_id)["Ann 0"] == "pending"
    settled.messages += writer
    settled.serve_until_ended(waiting, job_id)
    assert (settled.job(job_id).status, settled.job(waiting).status) == ("succeeded", "succeeded")


def test_and_one_whose_own_row_has_changed(settled: Scene, meanwhile: Callable[..., None]) -> None:
    meanwhile(lambda: settled.execute("UPDATE agents SET soul_template = 'Be kind.' WHERE name = 'Bob 1'"))
    job_id = begun(settled)
    assert [name for name, status in statuses(settled, job_id).items() if status == "pending"] == ["Bob 1"]
    settled.serve()
    assert settled.rows(job_id)["Bob 1"].files["SOUL.md"]["action"] == "update"


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM provisioner.agent_places WHERE agent_id = :id",
        "UPDATE provisioner.agent_credentials SET verified_hash = 'another' WHERE agent_id = :id",
        "UPDATE provisioner.agent_credentials SET pending_hash = 'another' WHERE agent_id = :id",
        "UPDATE provisioner.agent_credentials SET gateway_id = NULL WHERE agent_id = :id",
        "UPDATE agents SET openclaw_session_id = NULL WHERE id = :id",
        "UPDATE provisioner.agent_files SET size = 1 WHERE agent_id = :id AND name = 'SOUL.md'",
        "UPDATE provisioner.agent_files SET size = 1 WHERE agent_id = :id AND name = 'AGENTS.md'",
        "DELETE FROM provisioner.agent_files WHERE agent_id = :id AND name = 'HEARTBEAT.md'",
        "DELETE FROM provisioner.agent_files WHERE agent_id = :id",
    ],
)
def test_whatever_is_not_on_record_as_it_should_be_is_left_to_the_agents_own_row(
    settled: Scene, change: str
) -> None:
    ann = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    settled.execute(change, id=ann)
    job_id = begun(settled)
    assert [name for name, status in statuses(settled, job_id).items() if status == "pending"] == ["Ann 0"]
    settled.serve()
    assert settled.job(job_id).status == "succeeded"


def test_a_worker_that_takes_the_sync_over_goes_on_where_the_last_one_stopped(
    settled: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_FIRST", 2)
    monkeypatch.setattr(comparison, "_FEWEST", 2)
    monkeypatch.setattr(comparison, "_MOST", 2)
    settled.change_boards()
    settled.sync()
    settled.execute("UPDATE boards SET objective = 'Something else.' WHERE name = 'Second'")
    settled.simulator.faults.schedule(Fault(Drop(), LISTING, nth=3))  # Lead and Ann 0 were compared by then
    with settled.counting() as costs:
        job_id = begun(settled)
        assert (settled.job(job_id).compared_to, settled.job(job_id).phase) == (2, "compare")
        settled.serve_until_ended(job_id)
    assert costs.calls[LISTING] == 3 + 1 + 2, "three looks and one again, and those that had to be written"
    assert settled.job(job_id).result["agents_unchanged"] == 3


def test_it_hands_the_row_on_in_between(settled: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_FIRST", 2)
    monkeypatch.setattr(comparison, "_MOST", 2)
    monkeypatch.setattr(comparison, "_FEWEST", 2)
    monkeypatch.setattr(comparison, "AT_A_TIME_S", 0.0)
    job_id = begun(settled)
    assert list(statuses(settled, job_id).values()).count("succeeded") == 2
    assert [name for name, _, _ in settled.messages] == ["tasks.finish_sync"]
    settled.messages.clear()  # lost: the row is published again
    settled.execute(
        "UPDATE provisioner.jobs SET next_attempt_at = now(), failing_since = now(), wait_reason = 'It hung.'"
        " WHERE id = :id",
        id=job_id,
    )
    outcome = execute_sync(settled.services, job_id)
    assert isinstance(outcome, Snooze)
    assert (settled.job(job_id).failing_since, settled.job(job_id).wait_reason) == (None, None)
    settled.serve_until_ended(job_id)
    assert settled.job(job_id).result["agents_unchanged"] == 5


def test_a_gateway_that_is_busy_is_asked_again_for_what_it_did_not_answer(settled: Scene) -> None:
    settled.simulator.faults.schedule(busy(LISTING, nth=2, times=2))
    with settled.counting() as costs:
        job = settled.sync(include_main=False)
    assert (job.status, job.result["agents_unchanged"], job.tries) == ("succeeded", 5, 0)
    assert costs.messages == {"tasks.sync_gateway": 1}
    assert costs.calls[LISTING] == 5 + 2


def test_an_agent_of_which_it_tells_nothing_in_time_is_left_to_its_own_row(
    settled: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_looks, "LOOK_DEADLINE_S", 1.0)
    ann = _openclaw_id(settled, "Ann 0")
    settled.simulator.faults.schedule(Fault(Delay(2.0), LISTING, agent=ann, times=2))
    job_id = begun(settled)
    assert [name for name, status in statuses(settled, job_id).items() if status == "pending"] == ["Ann 0"]
    settled.serve_until_ended(job_id)
    assert settled.job(job_id).result["agents_unchanged"] == 5


def test_an_agent_at_which_the_gateway_always_hangs_up_does_not_hold_the_others(settled: Scene) -> None:
    settled.simulator.faults.schedule(Fault(Drop(), LISTING, agent=_openclaw_id(settled, "Ann 0"), times=99))
    job_id = begun(settled)
    assert list(statuses(settled, job_id).values()).count("succeeded") == 1, "the one before it"
    settled.execute("UPDATE provisioner.gateway_states SET probe_until = NULL")
    settled.execute("UPDATE provisioner.jobs SET next_attempt_at = now() WHERE id = :id", id=job_id)
    publish_due(settled.engine, settled.send)
    settled.one()
    assert settled.job(job_id).phase == "agents", "their own rows find out at whom"
    settled.simulator.faults.clear()
    settled.serve_until_ended(job_id)
    assert settled.job(job_id).result["agents_unchanged"] == 5


def test_a_cancel_ends_it_between_two_chunks(
    settled: Scene, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[..., None]
) -> None:
    for name in ("_FIRST", "_MOST", "_FEWEST"):
        monkeypatch.setattr(comparison, name, 2)
    meanwhile(lambda: settled.execute("UPDATE provisioner.jobs SET cancel_requested_at = now()"))
    with settled.counting() as costs:
        job_id = begun(settled)
        settled.serve()
    job = settled.job(job_id)
    assert (job.status, job.result["agents_cancelled"]) == ("cancelled", 3)
    assert costs.messages == {"tasks.sync_gateway": 1, "tasks.finish_sync": 1}, "none of them was begun"


def test_the_last_chunk_may_be_empty(settled: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST", "_MOST", "_FEWEST"):
        monkeypatch.setattr(comparison, name, 5)
    settled.change_boards()
    assert settled.job(begun(settled)).compared_to == 5


@pytest.mark.parametrize(
    ("module", "name"), [(workspace_plan, "_plan_scratch"), (agent_repository, "_require_no_rival")]
)
def test_a_fault_of_our_own_ends_one_agents_row_and_no_other(
    settled: Scene, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    ann = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    works = getattr(module, name)

    def faulty(one: Any, *rest: Any, **named: Any) -> Any:
        record = one if isinstance(one, agent_repository.AgentRecord) else one.record
        if record.agent.id == ann:
            raise ZeroDivisionError
        return works(one, *rest, **named)

    monkeypatch.setattr(module, name, faulty)
    job = settled.sync(include_main=False)
    assert (job.status, job.result["agents_unchanged"], job.result["agents_failed"]) == ("partial", 4, 1)


def test_a_worker_that_lost_the_sync_ends_no_row(settled: Scene, meanwhile: Callable[..., None]) -> None:
    meanwhile(lambda: settled.execute("UPDATE provisioner.jobs SET generation = generation + 1"))
    job_id = begun(settled)
    assert set(statuses(settled, job_id).values()) == {"pending"}


def test_drift_that_is_mended_is_forgotten_and_a_dry_run_says_what_it_sees(settled: Scene) -> None:
    settled.execute("UPDATE agents SET soul_template = 'Be kind.' WHERE name = 'Bob 1'")
    looked = settled.sync(dry_run=True, include_main=False)
    assert (looked.result["agents_unchanged"], looked.result["files_written"]) == (4, 1)
    assert settled.row("SELECT count(*) FROM provisioner.agent_drift")[0] == 1
    settled.execute("UPDATE agents SET soul_template = NULL WHERE name = 'Bob 1'")
    settled.sync(include_main=False)
    assert settled.row("SELECT count(*) FROM provisioner.agent_drift")[0] == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"dry_run": True}, {"overwrite": True, "keep_files": ["SOUL.md"], "overwrite_files": ["NO.md"]}],
)
def test_rows_and_result_are_what_the_agents_own_rows_would_have_left(
    settled: Scene, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    settled.execute("UPDATE users SET notes = 'Reads mail at nine.'")
    settled.execute("UPDATE agents SET soul_template = repeat('too long ', 3000) WHERE name = 'Bob 0'")
    settled.sync()
    home = settled.simulator.workspace(_openclaw_id(settled, "Ann 0"))
    (home / "SOUL.md").write_text((home / "SOUL.md").read_text() + "\nI like tea.\n")
    settled.sync()
    job = settled.sync(**options)
    assert job.result["agents_unchanged"] == 5
    monkeypatch.setattr(comparison, "NEEDS_MORE_THAN_A_LOOK", ("include_main",))
    again = settled.sync(**options)
    assert job.result == again.result
    kept = (
        "agent_name",
        "openclaw_id",
        "status",
        "phase",
        "reason",
        "warnings",
        "files",
        "roster",
        "outcome",
    )
    rows, others = settled.rows(job.id), settled.rows(again.id)
    for name, row in rows.items():
        for column in kept:
            assert getattr(row, column) == getattr(others[name], column), (name, column)
    assert rows["Ann 0"].files["SOUL.md"]["action"] == "preserved"
