"""Long runs of one character in an agent's files keep no sync busy: its time grows as the text does."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

from tests.integration.sync.scene import Scene, on

RUNS = {"Ann": " ", "Bob": "\t", "Cid": "`"}


def scribble(scene: Scene, agents: dict[str, UUID], size: int) -> None:
    """Each agent puts runs of a character of its own into the file that holds its token, and another one."""
    for name, agent in agents.items():
        folder, run = Path(scene.simulator.workspace(f"mc-{agent}")), RUNS[name] * size
        (folder / "TOOLS.md").write_text(f"{run}\n{(folder / 'TOOLS.md').read_text()}\nAUTH_TOKEN{run}=\n")
        (folder / "SOUL.md").write_text(f"{run}password{run}={run}\n")


@on("2026.2.12")
def test_a_sync_takes_time_in_proportion(scene: Scene) -> None:
    agents = {name: scene.agent(name) for name in RUNS}
    scene.provision(*agents.values())
    hashes = "SELECT array_agg(agent_token_hash ORDER BY id) AS all FROM agents"
    before = scene.row(hashes).all
    took: list[float] = []
    for size in (8 * 1024, 32 * 1024):
        scribble(scene, agents, size)
        start = time.thread_time()
        job = scene.sync(diff=True, include_main=False)
        took.append(time.thread_time() - start)
        assert (job.status, job.result["agents_updated"]) == ("succeeded", 3), job.result
        assert {row.outcome for row in scene.rows(job.id).values()} == {None}
    assert took[1] < 6 * took[0] + 0.5, took
    assert scene.row(hashes).all == before
