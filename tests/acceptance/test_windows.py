"""A gateway is restarted, and an agent woken, inside its sync windows only (rules.md 55)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.acceptance.world import World
from tests.benchmarks.bench import AwayClock
from worker.gateway.address import GatewayAddress
from worker.jobs.sync_windows import SyncWindow
from worker.records.sync_windows import add_window, remove_window, stored_windows


def open_windows(world: World) -> None:
    with world.engine.begin() as connection:
        for each in stored_windows(connection, world.fleet.gateway_id):
            remove_window(connection, each)


@pytest.fixture
def closed(world: World) -> Iterator[World]:
    """The gateway with a window that opens in five hours, and nothing of its config left to write."""
    _ = world.batch  # all are provisioned by now
    sync = world.ask("sync_gateway", gateway_id=world.fleet.gateway_id, include_main=False)
    world.ended(sync)
    begins = datetime.now(UTC) + timedelta(hours=5)
    with world.engine.begin() as connection:
        window = SyncWindow("allow", f"{begins:%M} {begins:%H} * * *", timedelta(hours=1))
        add_window(connection, world.fleet.gateway_id, window)
    yield world
    open_windows(world)


def until_it_waits(world: World, job_id: UUID) -> None:
    """Until the job's row, or that of its agent, waits for the window."""
    code = "waiting_for_window"

    def waits() -> bool:
        job = world.job(job_id)
        single = job is not None and job["agent_id"] is not None and job["status"] == "running"
        return job is not None and code == (world.row(job_id) if single else job)["reason_code"]

    world.eventually(waits, lambda: f"it does not wait: {world.job(job_id)}")


def test_a_change_that_restarts_the_gateway_waits_for_its_window(closed: World) -> None:
    world, agent = closed, closed.take()
    given = {"gateway_id": world.fleet.gateway_id, "include_main": False, "agent_ids": [str(agent.agent_id)]}
    restarts = world.release < "2026.8"
    world.set_agent(agent.agent_id, heartbeat_config={"every": "35m"})
    world.proxy.forget()
    with AwayClock(GatewayAddress(world.process.url, world.gateway_token)) as away:
        job_id = world.ask("sync_gateway", **given)
        if restarts:
            until_it_waits(world, job_id)
            assert world.proxy.count("config.patch") == 0
            # Nobody else waits behind it, and what disturbs nobody needs no window.
            assert world.ended(world.ask("sync_gateway", **given, dry_run=True))["status"] == "succeeded"
            assert away.restarts == 0
            open_windows(world)
        assert world.ended(job_id)["status"] == "succeeded"
        assert world.proxy.count("config.patch") == 1
    assert int(restarts and world.real) <= away.restarts <= int(restarts)
    assert world.roster()[agent.openclaw_id]["heartbeat"]["every"] == "35m"


def test_an_agent_is_woken_inside_the_window_only(closed: World) -> None:
    world, agent = closed, closed.take()
    world.proxy.forget()
    job_id = world.ask("update_agent", agent_id=agent.agent_id)
    until_it_waits(world, job_id)
    assert world.proxy.count("chat.send", "agents.files.set", "config.patch") == 0
    assert world.update(agent.agent_id, wake=False)["status"] == "succeeded"
    open_windows(world)
    assert world.ended(job_id)["result"]["woken"] is True
