"""What is done while something fails: each kind of job, from a scene that is set to a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.chaos.broken_scene import BrokenScene as Scene
from worker.records.agent_settings import set_settings
from worker.records.template_layers import Layer, add_version, promote

Prepare = Callable[[Scene], Any]


@dataclass(frozen=True)
class Deed:
    """``prepare`` sets the scene, undisturbed; ``ask`` makes the requests, with what ``prepare`` returned."""

    name: str
    prepare: Prepare
    ask: Callable[[Scene, Any], None]


def _two(scene: Scene) -> list[UUID]:
    agents = [scene.agent("Ada"), scene.agent("Bob")]
    scene.provision(*agents)
    return agents


def _changed(scene: Scene) -> list[UUID]:
    """Two agents, of whom files and roster entry have to change."""
    agents = _two(scene)
    scene.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
    scene.execute("UPDATE boards SET objective = 'Anew.'")
    with scene.engine.begin() as connection:
        set_settings(connection, "board", scene.fleet.board_id, {"skills": ["cooking"]}, locked=False)
    return agents


def _owners(scene: Scene) -> None:
    """An agent of the gateway's owner."""
    folder = scene.simulator.state_dir / "own" / "research"
    folder.mkdir(parents=True)
    (folder / ("AGENTS.md" if scene.simulator.release.roster_is_map else "TOOLS.md")).write_text("Mine.\n")
    (folder / "SOUL.md").write_text("Mine alone.")
    document = json.loads(scene.simulator.config_path.read_text())
    agents, entry = document["agents"], {"workspace": str(folder)}
    if scene.simulator.release.roster_is_map:
        agents["entries"]["research"] = entry
    else:
        agents["list"].append({"id": "research", **entry})
    scene.save("openclaw.json", document)


def _updated(scene: Scene) -> UUID:
    """An agent whose file an update has replaced."""
    [ada, _] = _two(scene)
    scene.execute("UPDATE agents SET soul_template = 'I am changed.' WHERE id = :id", id=ada)
    scene.ask("update_agent", agent_id=ada, wake=False)
    scene.work_on()
    return ada


def _promoted(scene: Scene) -> None:
    """Two agents, and a text of their board that is promoted."""
    _two(scene)
    layer = Layer("board", str(scene.fleet.board_id), "Launch")
    with scene.engine.begin() as connection:
        number, *_ = add_version(
            connection, layer, "SOUL.md", "I am {{ agent_name }}.", plain=False, note=None, by="chaos"
        )
        promote(connection, layer, {"SOUL.md": number}, by="chaos")


def _of(kind: str, **options: Any) -> Callable[[Scene, Any], None]:
    def ask(scene: Scene, agents: Any) -> None:
        first = agents[0] if isinstance(agents, list) else agents
        scene.ask(kind, agent_id=first, **options)

    return ask


def _at_gateway(kind: str, **options: Any) -> Callable[[Scene, Any], None]:
    def ask(scene: Scene, _: Any) -> None:
        scene.ask(kind, gateway_id=scene.fleet.gateway_id, **options)

    return ask


def _adopt(scene: Scene, _: Any) -> None:
    scene.ask(
        "adopt_agent",
        gateway_id=scene.fleet.gateway_id,
        openclaw_id="research",
        board_id=scene.fleet.board_id,
        dry_run=False,
    )


DEEDS: Mapping[str, Deed] = {
    deed.name: deed
    for deed in (
        Deed("provision", lambda scene: scene.agent("Ada"), _of("provision_agent")),
        Deed("update", _changed, _of("update_agent")),
        Deed("rotate", _two, _of("update_agent", rotate_tokens=True, wake=False)),
        Deed("delete", _two, _of("delete_agent")),
        Deed("sync", _changed, _at_gateway("sync_gateway", include_main=False)),
        Deed("adopt", _owners, _adopt),
        Deed("rollback", _updated, _of("rollback")),
        Deed(
            "roll-out",
            _promoted,
            _at_gateway("roll_out", include_main=False, canary="1", wait="0s", accept_unknown=True),
        ),
    )
}
