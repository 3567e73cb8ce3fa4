"""A delete whose removal is refused, or whose gateway's roster is unknown, deletes neither the row nor the
session (rules.md 40)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.sync.scene import Scene
from worker.gateway import roster_reading


def moved_into_an_include(scene: Scene, stored: dict[str, Any]) -> None:
    scene.save("agents.json5", stored["agents"])
    scene.save("openclaw.json", {**stored, "agents": {"$include": "./agents.json5"}})


def broken(scene: Scene, stored: dict[str, Any]) -> None:
    scene.save("openclaw.json", json.dumps(stored)[:-5])


@pytest.mark.parametrize(
    ("simulator", "change", "said"),
    [
        ("2026.9.6", moved_into_an_include, "move agents back into openclaw.json"),
        ("2026.2.12", moved_into_an_include, "allow-rewrite"),
        ("2026.9.6", broken, "openclaw.json is invalid"),
        ("2026.2.12", broken, "openclaw.json is invalid"),
    ],
    indirect=["simulator"],
)
def test_the_row_of_an_agent_that_stays_on_its_gateway_stays(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    monkeypatch.setattr(roster_reading, "_PAUSE_S", 0.01)
    agent = scene.agent("Ann")
    scene.provision(agent)
    good = scene.simulator.config_path.read_text()
    change(scene, json.loads(good))
    job_id = scene.ask("delete_agent", agent_id=agent)
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, said in str(job.error)) == ("failed", True), job.error
    assert scene.row("SELECT count(*) AS n FROM agents WHERE id = :id", id=agent).n == 1
    scene.save("openclaw.json", good)
    assert f"mc-{agent}" in scene.simulator.agents()
    calls = scene.simulator.journal.calls
    assert not [call for call in calls if call.method in ("agents.delete", "sessions.delete") and call.ok]
