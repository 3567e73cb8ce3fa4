"""A job that failed has done what its rows say, and a retry goes on from there (docs/operations.md)."""

from __future__ import annotations

from pathlib import Path

from tests.integration.sync.scene import Scene, on_one_release
from worker.jobs.store.retrying import retry
from worker.lab.simulator.faults import Fault, Refuse

pytestmark = on_one_release


def test_a_provision_that_fails_at_the_wake_has_registered_its_agent_and_written_its_files(
    scene: Scene,
) -> None:
    agent = scene.agent("Ann")
    refused = Fault(Refuse("no", code="INVALID_REQUEST"), "chat.send")
    scene.simulator.faults.order(refused)
    job_id = scene.ask("provision_agent", agent_id=agent)
    scene.serve()
    job, row = scene.job(job_id), scene.rows(job_id)["Ann"]
    assert (job.status, row.status, row.phase) == ("failed", "failed", "wake")
    assert f"mc-{agent}" in scene.simulator.agents()
    folder = Path(scene.simulator.workspace(f"mc-{agent}"))
    written = {name for name, file in row.files.items() if file["action"] == "create"}
    assert {"SOUL.md", "AGENTS.md"} <= written
    contents = {name: (folder / name).read_text() for name in ("SOUL.md", "AGENTS.md")}
    with scene.engine.begin() as connection:
        again = retry(connection, job_id, requested_by=None)
    with scene.counting() as costs:
        scene.serve()
    assert (scene.job(again).status, scene.job(again).result["woken"]) == ("succeeded", True)
    assert costs.calls["agents.files.set"] == costs.calls["config.patch"] == 0
    assert {name: (folder / name).read_text() for name in contents} == contents
