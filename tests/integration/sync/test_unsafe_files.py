"""Files that a gateway does not touch: passing or lasting is told by looking, and nobody else waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.integration.sync.scene import Scene, make_scene
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Refuse


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    with Simulator("2026.9.6", token="gateway-token", state_dir=tmp_path / "gateway") as running:
        yield running


@pytest.fixture
def pair(simulator: Simulator, engine: Engine, hands: Callable[..., Any]) -> tuple[Scene, Path]:
    """Ann, whose workspace is the path, and Bob; the templates of both have changed."""
    scene = make_scene(simulator, engine, hands(retry_inline_s=20))
    agents = [scene.agent(name) for name in ("Ann", "Bob")]
    scene.provision(*agents)
    scene.execute("UPDATE agents SET soul_template = 'Other.'")
    return scene, simulator.state_dir / "ws" / f"workspace-mc-{agents[0]}"


def sets(scene: Scene, name: str) -> int:
    agent = scene.row("SELECT id FROM agents WHERE name = 'Ann'").id
    calls = [call for call in scene.simulator.calls if call.method == "agents.files.set"]
    return sum((call.names["name"], call.names["agentId"]) == (name, f"mc-{agent}") for call in calls)


def link(file: Path) -> None:
    shared = file.parent.parent / "shared.md"
    file.rename(shared)
    file.symlink_to(shared)


def hard_link(file: Path) -> None:
    os.link(file, file.parent.parent / "shared.md")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def read_only(file: Path) -> None:
    file.chmod(0o444)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (link, "symbolic link"),
        (hard_link, "hard link"),
        (folder, "mv SOUL.md SOUL.md.moved"),
        (read_only, "neither the file nor its folder is read-only"),
    ],
)
def test_what_stays_so_fails_its_agent_alone_with_the_cure(
    pair: tuple[Scene, Path], make: Callable[[Path], None], kind: str
) -> None:
    scene, workspace = pair
    make(workspace / "SOUL.md")
    before = sets(scene, "SOUL.md")
    job = scene.sync(include_main=False)
    rows = scene.rows(job.id)
    assert (rows["Ann"].status, rows["Bob"].status) == ("failed", "succeeded")
    assert kind in rows["Ann"].reason
    assert "SOUL.md" in rows["Ann"].reason
    assert sets(scene, "SOUL.md") - before <= 3
    assert (
        scene.row("SELECT count(*) AS n FROM provisioner.gateway_states WHERE down_since IS NOT NULL").n == 0
    )


def test_what_passes_is_written_at_the_next_try(pair: tuple[Scene, Path]) -> None:
    scene, _ = pair
    refusal = Refuse('unsafe workspace file "SOUL.md"', "INVALID_REQUEST")
    scene.simulator.faults.schedule(Fault(refusal, "agents.files.set", file="SOUL.md", times=2))
    assert scene.sync(include_main=False).status == "succeeded"


def test_a_memory_behind_a_link_is_left_as_it_is(pair: tuple[Scene, Path]) -> None:
    scene, workspace = pair
    (workspace / "MEMORY.md").write_text("Remember.")
    link(workspace / "MEMORY.md")
    job = scene.sync(include_main=False)
    assert job.status == "succeeded", job.error
    assert any("MEMORY.md was left as it is" in warning for warning in job.warnings)
    assert (workspace / "MEMORY.md").read_text() == "Remember."


def test_a_full_disk_is_no_outage(pair: tuple[Scene, Path]) -> None:
    scene, _ = pair
    full = Refuse("Error: ENOSPC: no space left on device, write: code=ENOSPC")
    scene.simulator.faults.schedule(Fault(full, "agents.files.set", times=1))
    job = scene.sync(include_main=False)
    assert sorted(row.status for row in scene.rows(job.id).values()) == ["failed", "succeeded"]
    assert "free space there" in str(job.result["errors"])
