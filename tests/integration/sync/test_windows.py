"""What restarts a gateway or disturbs an agent waits for a sync window, and holds nothing (rules.md 55)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Literal
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.sync.scene import Scene, on, on_one_release
from worker.agents import execution
from worker.jobs.requests import BadRequestError, SyncHeartbeats
from worker.jobs.schedule_firing import fire_due
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.jobs import enqueue
from worker.jobs.sync_windows import NeverOpensError, SyncWindow
from worker.records.sync_windows import StoredWindow, add_window, remove_window, stored_windows
from worker.sync import execution as sync_execution
from worker.sync.heartbeat_job import execute_heartbeats

on_list = on("2026.2.12")
"""A release that a config write restarts."""
OPENS = re.compile(
    r"waiting for the sync window of gateway 'workshop', which opens at \d{4}-\d\d-\d\d \d\d:\d\d UTC"
)


def close(scene: Scene, effect: Literal["allow", "deny"] = "allow", *, everything: bool = False) -> None:
    """Close the gateway's windows for hours, by one that allows later or by one that denies now."""
    begins = datetime.now(UTC) + timedelta(hours=5 if effect == "allow" else -1)
    window = SyncWindow(effect, f"{begins:%M} {begins:%H} * * *", timedelta(hours=3), "UTC", everything)
    with scene.engine.begin() as connection:
        add_window(connection, scene.fleet.gateway_id, window)


def windows(scene: Scene) -> list[StoredWindow]:
    with scene.engine.connect() as connection:
        return stored_windows(connection)


def open_again(scene: Scene) -> None:
    for each in windows(scene):
        with scene.engine.begin() as connection:
            remove_window(connection, each)
    scene.serve()


def heartbeat(scene: Scene, every: str = "25m") -> None:
    """Something for the roster writer to write."""
    scene.execute(
        "UPDATE agents SET heartbeat_config = CAST(:value AS json)", value=f'{{"every": "{every}"}}'
    )


def begun(scene: Scene, job_id: UUID) -> bool:
    """Whether the job has written, woken or asked for anything."""
    intents = scene.row(
        "SELECT count(*) AS n FROM provisioner.roster_intents WHERE job_id = :id", id=job_id
    ).n
    return bool(intents or any(row.files or row.woken_at for row in scene.rows(job_id).values()))


def waits(scene: Scene, job_id: UUID) -> None:
    """The job waits for the window, and nothing is held for it."""
    job, rows = scene.job(job_id), scene.rows(job_id)
    waiting = job if job.status == "queued" else next(iter(rows.values()))
    reason = waiting.wait_reason if waiting is job else waiting.reason
    assert OPENS.fullmatch(reason), reason
    assert waiting.reason_code == "waiting_for_window"
    assert waiting.lease_until is None
    assert waiting.next_attempt_at > datetime.now(UTC) + timedelta(hours=1)
    assert not any(row.status == "running" for row in rows.values())
    assert not begun(scene, job_id)


def test_an_update_that_wakes_waits_and_holds_nothing(settled: Scene) -> None:
    ann = settled.row("SELECT id, status FROM agents WHERE name = 'Ann 0'")
    close(settled)
    job_id = settled.ask("update_agent", agent_id=ann.id)
    settled.serve()
    waits(settled, job_id)
    assert settled.row("SELECT status FROM agents WHERE id = :id", id=ann.id).status == ann.status

    # Another job has the agent meanwhile, and the one that waits is not next in line.
    at_once = settled.ask("update_agent", agent_id=ann.id, now=True, wake=False)
    quiet = settled.ask("update_agent", agent_id=ann.id, wake=False)
    settled.serve()
    assert [settled.job(each).status for each in (at_once, quiet)] == ["succeeded", "succeeded"]
    waits(settled, job_id)

    open_again(settled)
    assert settled.job(job_id).status == "succeeded"
    assert settled.job(job_id).result["woken"]


@on_one_release
@pytest.mark.parametrize("whose", [execution, sync_execution])
def test_windows_that_are_changed_while_a_job_looks_at_them_are_not_waited_for(
    settled: Scene, monkeypatch: pytest.MonkeyPatch, whose: ModuleType
) -> None:
    close(settled)
    set_back = whose._set_back

    def changed_meanwhile(*arguments: object) -> object:
        for each in windows(settled):
            with settled.engine.begin() as connection:
                remove_window(connection, each)
        return set_back(*arguments)

    monkeypatch.setattr(whose, "_set_back", changed_meanwhile)
    gateway = {"gateway_id": settled.fleet.gateway_id, "reset_sessions": True, "include_main": False}
    agent = {"agent_id": settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id}
    kind, target = ("update_agent", agent) if whose is execution else ("sync_gateway", gateway)
    job = settled.ask(kind, **target)
    settled.serve()
    assert settled.job(job).reason_code != "waiting_for_window"
    settled.serve_until_ended(job)
    assert settled.job(job).status == "succeeded"


def test_what_disturbs_nobody_does_not_wait(settled: Scene) -> None:
    close(settled, "deny")
    settled.execute("UPDATE agents SET soul_template = 'I am changed.' WHERE name = 'Ann 1'")
    job = settled.sync()
    assert (job.status, job.result["files_written"]) == ("succeeded", 1)


@on_list
def test_a_sync_that_restarts_the_gateway_waits_and_others_run_meanwhile(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    settled.execute("UPDATE agents SET soul_template = 'I am changed.' WHERE name = 'Ann 1'")
    waiting = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.serve()
    waits(settled, waiting)
    looked = settled.sync(dry_run=True)
    assert looked.result["roster_changes"] == 6
    settled.agent("Late")  # its row is made when the sync begins
    settled.execute("DELETE FROM agents WHERE name = 'Bob 1'")

    open_again(settled)
    job = settled.job(waiting)
    assert (job.status, job.result["roster_changes"]) == ("partial", 5)
    assert {name: row.status for name, row in settled.rows(waiting).items() if row.status != "succeeded"} == {
        "Bob 1": "skipped",
        "Late": "skipped",
    }


@on_list
def test_a_sync_that_waited_ends_the_rows_of_agents_that_are_gone(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    alone, whole = (
        settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id, include_main=main)
        for main in (False, True)
    )
    settled.serve()
    waits(settled, alone)
    waits(settled, whole)
    settled.execute("UPDATE agents SET heartbeat_config = NULL")
    settled.execute("DELETE FROM agents WHERE name = 'Bob 1' OR board_id IS NULL")
    settled.main()

    open_again(settled)
    settled.serve_until_ended(whole)
    job, rows = settled.job(alone), settled.rows(alone)
    assert (job.status, job.agents_done, job.agents_total) == ("succeeded", 5, 5)
    assert rows.pop("Bob 1").outcome == "deleted"
    assert {row.status for row in rows.values()} == {"succeeded"}
    mains = "SELECT status, outcome FROM provisioner.job_agents WHERE job_id = :job AND agent_name = :name"
    with settled.engine.connect() as connection:
        found = connection.execute(text(mains), {"job": whole, "name": "workshop Gateway Agent"}).all()
    assert sorted(map(tuple, found)) == [("skipped", "deleted"), ("succeeded", None)]
    assert settled.job(whole).result["main_updated"]


@on_list
def test_an_update_that_restarts_the_gateway_waits(settled: Scene) -> None:
    ann = settled.row("SELECT id, status FROM agents WHERE name = 'Ann 0'")
    close(settled)
    heartbeat(settled)
    job_id = settled.ask("update_agent", agent_id=ann.id, wake=False)
    settled.serve()
    waits(settled, job_id)
    assert settled.row("SELECT status FROM agents WHERE id = :id", id=ann.id).status == ann.status
    open_again(settled)
    settled.serve_until_ended(job_id)
    assert settled.job(job_id).status == "succeeded"


@on_one_release
def test_a_release_that_no_write_restarts_needs_no_window_for_one(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    assert settled.sync().result["roster_changes"] == 6


def test_new_sessions_wait_also_in_a_sync(settled: Scene) -> None:
    close(settled)
    job_id = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id, reset_sessions=True)
    settled.serve()
    waits(settled, job_id)
    assert settled.sync(reset_sessions=True, now=True).status == "succeeded"


@pytest.mark.parametrize("cancelled", ["update_agent", "sync_gateway"])
@on_list
def test_what_waits_can_be_cancelled(settled: Scene, cancelled: str) -> None:
    close(settled)
    heartbeat(settled)
    agent_id = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    target = (
        {"agent_id": agent_id} if cancelled == "update_agent" else {"gateway_id": settled.fleet.gateway_id}
    )
    job_id = settled.ask(cancelled, **target)
    settled.serve()
    with settled.engine.begin() as connection:
        cancel(connection, job_id)
    settled.serve()
    assert settled.job(job_id).status == "cancelled"
    assert {row.status for row in settled.rows(job_id).values()} == {"cancelled"}


@on_one_release
def test_deletes_first_provisions_and_rotations_need_one_only_where_it_says_all(settled: Scene) -> None:
    rows = settled.rows
    ids = {
        name: settled.row("SELECT id FROM agents WHERE name = :name", name=name).id
        for name in ("Ann 0", "Bob 0")
    }

    def all_of_them() -> dict[str, UUID]:
        return {
            "delete": settled.ask("delete_agent", agent_id=ids["Ann 0"]),
            "first": settled.ask("provision_agent", agent_id=settled.agent("New")),
            "rotation": settled.ask("update_agent", agent_id=ids["Bob 0"], rotate_tokens=True),
        }

    close(settled, everything=True)
    asked = all_of_them()
    settled.serve()
    for job_id in asked.values():
        waits(settled, job_id)
    provisioned = settled.ask("provision_agent", agent_id=ids["Bob 0"], now=True)
    settled.serve()
    assert settled.job(provisioned).status == "succeeded"
    for each in windows(settled):
        with settled.engine.begin() as connection:
            close_others = SyncWindow(each.window.effect, each.window.cron, each.window.duration)
            remove_window(connection, each)
            add_window(connection, settled.fleet.gateway_id, close_others)
    settled.serve_until_ended(*asked.values())
    assert {name: settled.job(job_id).status for name, job_id in asked.items()} == dict.fromkeys(
        asked, "succeeded"
    )
    assert all(not row.reason for job_id in asked.values() for row in rows(job_id).values())


@on_one_release
def test_a_rotation_on_a_schedule_waits(settled: Scene) -> None:
    close(settled)
    asked = settled.sync(rotate_tokens=True)
    assert asked.status == "succeeded"
    job_id = settled.ask(
        "sync_gateway", gateway_id=settled.fleet.gateway_id, rotate_tokens=True, requested_by="schedule"
    )
    settled.serve()
    waits(settled, job_id)


def heartbeats(scene: Scene) -> UUID:
    with scene.engine.begin() as connection:
        request = SyncHeartbeats(gateway_id=scene.fleet.gateway_id)
        job_id = enqueue(connection, request, published=True).job_id
    scene.begin_heartbeats(job_id)
    execute_heartbeats(scene.services, job_id)
    return job_id


def test_heartbeats_wait_where_they_restart_the_gateway(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    job_id = heartbeats(settled)
    restarts = settled.simulator.release.name == "2026.2.12"
    if restarts:
        job = settled.job(job_id)
        assert (job.status, job.reason_code) == ("running", "waiting_for_window")
        assert OPENS.fullmatch(job.wait_reason)
        assert not begun(settled, job_id)
        settled.execute("DELETE FROM agents WHERE name = 'Bob 1'")
        open_again(settled)
    settled.serve_until_ended(job_id)
    job = settled.job(job_id)
    assert (job.status, job.result["updated"]) == (("partial", 5) if restarts else ("succeeded", 6))


@on_list
def test_heartbeats_that_wait_can_be_cancelled(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    job_id = heartbeats(settled)
    with settled.engine.begin() as connection:
        assert cancel(connection, job_id)
    assert {row.status for row in settled.rows(job_id).values()} == {"cancelled"}


@on_list
def test_a_schedule_does_not_queue_a_second_sync_behind_one_that_waits(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    settled.execute(
        "INSERT INTO provisioner.sync_schedules (id, gateway_id, every, next_run_at)"
        " VALUES (gen_random_uuid(), :gateway, interval '1 hour', now())",
        gateway=settled.fleet.gateway_id,
    )
    fire_due(settled.engine)
    settled.serve()
    job_id = settled.row("SELECT last_job_id FROM provisioner.sync_schedules").last_job_id
    waits(settled, job_id)
    settled.execute("UPDATE provisioner.sync_schedules SET next_run_at = now()")
    assert fire_due(settled.engine) == 0
    assert "waits for a sync window" in settled.row("SELECT note FROM provisioner.sync_schedules").note
    open_again(settled)
    assert settled.job(job_id).status == "succeeded"


@on_list
def test_a_ring_waits_for_the_window_of_its_gateway(settled: Scene) -> None:
    close(settled)
    heartbeat(settled)
    job_id = settled.ask(
        "roll_out", gateway_id=settled.fleet.gateway_id, canary="1", wait="0s", accept_unknown=True
    )
    settled.serve()
    for _ in range(20):
        settled.execute("UPDATE provisioner.jobs SET next_attempt_at = now() WHERE status = 'running'")
        settled.serve()
    job = settled.job(job_id)
    assert (job.status, job.phase, job.reason_code) == ("running", "deliver", "waiting_for_window")
    assert OPENS.fullmatch(job.wait_reason)
    child = settled.row("SELECT id FROM provisioner.jobs WHERE status = 'queued'").id
    waits(settled, child)
    open_again(settled)
    settled.serve_until_ended(job_id)
    assert settled.job(job_id).status == "succeeded"


@on_one_release
def test_an_agent_that_moves_needs_the_windows_of_both_gateways(settled: Scene) -> None:
    settled.execute(
        "INSERT INTO gateways (id, organization_id, name, url, token, workspace_root, created_at, updated_at)"
        " SELECT gen_random_uuid(), organization_id, 'Former', url, token, workspace_root, now(), now()"
        " FROM gateways"
    )
    former = settled.row("SELECT id FROM gateways WHERE name = 'Former'").id
    ann = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    settled.execute(
        "UPDATE provisioner.agent_places SET gateway_id = :former WHERE agent_id = :ann",
        former=former,
        ann=ann,
    )
    begins = datetime.now(UTC) + timedelta(hours=5)
    with settled.engine.begin() as connection:
        later = SyncWindow("allow", f"{begins:%M} {begins:%H} * * *", timedelta(hours=3))
        add_window(connection, former, later)
    job_id = settled.ask("update_agent", agent_id=ann, wake=False)
    settled.serve()
    row = settled.rows(job_id)["Ann 0"]
    assert "waiting for the sync window of gateway 'Former'" in row.reason


@on_one_release
def test_windows_that_would_never_open_change_nothing(scene: Scene) -> None:
    gateway_id = scene.fleet.gateway_id
    night = SyncWindow("allow", "0 2 * * *", timedelta(hours=2))
    with scene.engine.begin() as connection:
        add_window(connection, gateway_id, night)
    for effect, cron, hours, said in (
        ("deny", "0 1 * * *", 4, "another denies"),
        ("allow", "0 2 * * *", 2, "has this window already"),
    ):
        window = SyncWindow(effect, cron, timedelta(hours=hours))  # type: ignore[arg-type]
        with pytest.raises(BadRequestError, match=said), scene.engine.begin() as connection:
            add_window(connection, gateway_id, window)
    with scene.engine.begin() as connection:
        add_window(connection, gateway_id, SyncWindow("allow", "0 12 * * *", timedelta(hours=1)))
        add_window(connection, gateway_id, SyncWindow("deny", "0 1 * * *", timedelta(hours=4)))
    noon = next(each for each in windows(scene) if each.window.cron == "0 12 * * *")
    with pytest.raises(NeverOpensError), scene.engine.begin() as connection:
        remove_window(connection, noon)
    assert len(windows(scene)) == 3
