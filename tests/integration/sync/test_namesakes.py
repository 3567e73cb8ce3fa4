"""Gateways on one machine, or rows of one gateway: what an agent leaves may be what somebody lives in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene
from tests.integration.sync.test_places import delete, folder, provision
from worker.cli.doctor.fleet import read_fleet
from worker.lab.simulator import Simulator

NOTES = "Months of notes.\n"


@pytest.fixture
def beside(scene: Scene, tmp_path: Path) -> Iterator[Simulator]:
    """A second gateway of the same release, on a machine of its own."""
    with Simulator(
        scene.simulator.release.name, token="0ther-t0ken", state_dir=tmp_path / "other"
    ) as running:
        yield running


@pytest.fixture
def home(scene: Scene) -> Path:
    """The folder of Ann, who has notes in it."""
    agent = scene.agent("Ann")
    provision(scene, agent)
    (folder(scene, agent) / "MEMORY.md").write_text(NOTES)
    return folder(scene, agent)


def ann(home: Path) -> UUID:
    return UUID(home.name.removeprefix("workspace-mc-"))


def second_row(scene: Scene, url: str, token: str) -> dict[str, UUID]:
    """Another gateway with the same workspace_root, and a board on it."""
    root = str(scene.simulator.state_dir / "ws")
    gateway = scene.fleet.add_gateway("Beside", url, token, root)
    return {"gateway_id": gateway, "board_id": scene.fleet.add_board("Beside", gateway_id=gateway)}


def move(scene: Scene, agent: UUID, place: dict[str, UUID]) -> Any:
    scene.execute(
        "UPDATE agents SET gateway_id = :gateway_id, board_id = :board_id WHERE id = :id", id=agent, **place
    )
    return provision(scene, agent)


def share_the_disk(scene: Scene, beside: Simulator) -> None:
    """Let both gateways see one folder under the same path, as two on one machine do."""
    root = scene.simulator.state_dir / "ws"
    there = beside.state_dir.joinpath("root", *root.parts[1:])
    there.parent.mkdir(parents=True, exist_ok=True)
    there.symlink_to(root)


def test_a_move_to_a_gateway_on_the_same_machine_keeps_the_folder(
    scene: Scene, beside: Simulator, home: Path
) -> None:
    share_the_disk(scene, beside)
    job = move(scene, ann(home), second_row(scene, beside.url, beside.token))
    assert (home / "MEMORY.md").read_text() == NOTES
    assert f"mc-{ann(home)}" in beside.agents()
    assert f"mc-{ann(home)}" not in scene.simulator.agents()
    assert any("on gateway 'Beside'" in warning and "left" in warning for warning in job.warnings)


def test_a_move_to_another_machine_leaves_nothing_behind(scene: Scene, beside: Simulator, home: Path) -> None:
    bob = scene.agent("Bob")
    provision(scene, bob)
    place = second_row(scene, beside.url, beside.token)
    job = move(scene, bob, place)
    assert not (home.parent / f"workspace-mc-{bob}").exists()
    assert not any("left" in warning for warning in job.warnings)
    assert f"mc-{bob}" not in scene.simulator.agents()


def test_a_move_to_another_machine_leaves_the_notes_where_they_are(
    scene: Scene, beside: Simulator, home: Path
) -> None:
    job = move(scene, ann(home), second_row(scene, beside.url, beside.token))
    assert (home / "MEMORY.md").read_text() == NOTES
    assert any(str(home) in warning and "(MEMORY.md)" in warning for warning in job.warnings)
    assert f"mc-{ann(home)}" not in scene.simulator.agents()


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST"])
def test_a_move_to_another_row_of_the_same_gateway_keeps_the_agent(
    scene: Scene, home: Path, host: str
) -> None:
    url = scene.simulator.url.replace("127.0.0.1", host)
    job = move(scene, ann(home), second_row(scene, url, scene.simulator.token))
    assert f"mc-{ann(home)}" in scene.simulator.agents()
    assert (home / "MEMORY.md").read_text() == NOTES
    assert any("gateway 'Beside' is the same one under another row" in warning for warning in job.warnings)
    assert provision(scene, ann(home)).warnings == []
    with scene.engine.connect() as connection:
        assert read_fleet(connection, scene.fleet.gateway_id).twins == {"Beside"}


def test_a_deleted_agent_goes_whichever_row_it_is_deleted_by(scene: Scene, home: Path) -> None:
    move(scene, ann(home), second_row(scene, scene.simulator.url, scene.simulator.token))
    assert delete(scene, ann(home)).result["removed"] is True
    assert f"mc-{ann(home)}" not in scene.simulator.agents()
    assert not home.exists()
