"""What a sync and its agents count of their tries, and how long they then wait for a gateway that is busy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.agents import execution
from worker.gateway.idle_timeout import idle_timeout_s
from worker.jobs.store.job_agents import Claim
from worker.lab.simulator.faults import busy
from worker.runtime.services import Services

pytestmark = on_one_release


@pytest.fixture
def hasty(settled: Scene, hands: Callable[..., Services]) -> Scene:
    """A fleet whose workers repeat no call within a try."""
    return replace(settled, services=hands(retry_inline_s=0))


def test_a_sync_counts_the_failed_tries_of_its_own_steps(hasty: Scene) -> None:
    hasty.simulator.faults.schedule(busy("config.get", times=2))
    job_id = hasty.ask("sync_gateway", gateway_id=hasty.fleet.gateway_id)
    hasty.serve_until_ended(job_id)
    job = hasty.job(job_id)
    assert (job.status, job.tries, job.crashes) == ("succeeded", 2, 0)


def test_an_agent_waits_longer_for_a_busy_gateway_after_each_failed_try_but_not_after_a_planned_wait(
    hasty: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: dict[str, list[float | None]] = {}
    execute = execution._execute

    def watched(services: Any, held: Claim, handler: Any) -> Any:
        name = hasty.row("SELECT name FROM agents WHERE id = :id", id=held.agent_id).name
        timeouts.setdefault(name, []).append(idle_timeout_s())
        return execute(services, held, handler)

    monkeypatch.setattr(execution, "_execute", watched)
    ann = hasty.row("SELECT openclaw_session_id AS key FROM agents WHERE name = 'Ann 0'").key
    hasty.change_boards()
    hasty.simulator.faults.schedule(busy("agents.workspace.list", agent=ann.split(":")[1], times=2))
    job_id = hasty.ask("sync_gateway", gateway_id=hasty.fleet.gateway_id)
    hasty.one()
    hasty.execute("UPDATE provisioner.job_agents SET generation = 9 WHERE status = 'pending'")
    hasty.serve_until_ended(job_id)
    assert hasty.job(job_id).status == "succeeded"
    assert timeouts.pop("Ann 0") == [3.0, 4.5, 6.75]
    assert len(timeouts) == 5
    assert all(waits == [3.0] for waits in timeouts.values())
    assert {name: row.tries for name, row in hasty.rows(job_id).items()} == {
        "Ann 0": 2,
        **dict.fromkeys(timeouts, 0),
    }
