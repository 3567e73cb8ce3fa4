from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.integration.sync.scene import Scene, make_scene
from worker.lab.simulator import Simulator


@pytest.fixture(params=["2026.9.6", "2026.2.12"])  # `on_one_release` in scene.py takes the first alone
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(request.param, token="gateway-token", state_dir=tmp_path / "gateway") as running:
        yield running


@pytest.fixture
def scene(simulator: Simulator, engine: Engine, hands: Callable[..., Any]) -> Scene:
    return make_scene(simulator, engine, hands(retry_inline_s=5))


@pytest.fixture
def settled(scene: Scene) -> Scene:
    """Six agents on two boards, a lead and the main agent among them, all provisioned."""
    second = scene.fleet.add_board("Second")
    agents = [scene.agent("Lead", lead=True), *(scene.agent(f"Ann {n}") for n in range(2))]
    agents += [scene.agent(f"Bob {n}", board_id=second) for n in range(2)]
    scene.provision(*agents, scene.main())
    return scene
