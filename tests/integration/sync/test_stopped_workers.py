"""A worker that was stopped for longer than its lease sends nothing any more (decisions.md D5)."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.sync.scene import Scene
from worker.agents import agent_job
from worker.agents.workspace_apply import apply_workspace
from worker.jobs import lease_renewal
from worker.jobs.store.job_agents import claim
from worker.jobs.store.leases import NotClaimed

_EXPIRE = """
    UPDATE provisioner.job_agents SET lease_until = now() - interval '1 s', published_at = now()
    WHERE status = 'running'
"""


class StoppedClock:
    """The time module for leases, with a clock that can jump."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


def stopped_before_its_files(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, taken_over: bool
) -> tuple[Any, int]:
    """A provision whose worker is stopped before it writes files; returns the job, and how many it wrote."""
    scene.services = replace(
        scene.services, settings=scene.services.settings.model_copy(update={"lease_s": 300})
    )
    clock, write = StoppedClock(), apply_workspace
    monkeypatch.setattr(lease_renewal, "time", clock)
    job_id = scene.ask("provision_agent", agent_id=scene.agent("Ada"), wake=False)
    wrote = []

    def stop_and_go_on(context: Any, **options: Any) -> None:
        clock.ahead_s += 1000
        if taken_over:
            scene.execute(_EXPIRE)
            other = claim(scene.engine, job_id, context.agent_id, "provision_agent", lease_s=300)
            assert not isinstance(other, NotClaimed)
        before = len(scene.simulator.calls)
        try:
            write(context, **options)
        finally:
            wrote.append(len(scene.simulator.calls) - before)

    with monkeypatch.context() as patch:
        patch.setattr(agent_job, "apply_workspace", stop_and_go_on)
        scene.serve()
    return scene.job(job_id), wrote[0]


def test_a_worker_whose_row_another_has_taken_sends_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, sent = stopped_before_its_files(scene, monkeypatch, taken_over=True)
    assert sent == 0
    assert job.status == "running"
    assert scene.rows(job.id)["Ada"].generation >= 2


def test_a_worker_whose_row_nobody_has_taken_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    job, sent = stopped_before_its_files(scene, monkeypatch, taken_over=False)
    assert sent > 5
    assert (job.status, job.error) == ("succeeded", None)
