"""Layers of templates, from our rows to what the gateway holds (rules.md 49)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.integration.sync.scene import Scene, make_scene, on_one_release
from worker.lab.simulator import Simulator
from worker.lab.simulator.known_releases import RELEASES
from worker.records.agent_repository import load_agent
from worker.records.layer_check import LayerCheck, check_layer
from worker.records.template_layers import (
    Layer,
    add_version,
    promote,
    revert,
    role_target,
    set_override_form,
    version_of,
)
from worker.workspace.layers import Scope

BASE_URL = "http://127.0.0.1:8000"


def layer(scene: Scene, scope: Scope = "board") -> Layer:
    fleet = scene.fleet
    targets = {
        "organization": str(fleet.organization_id),
        "gateway": str(fleet.gateway_id),
        "board": str(fleet.board_id),
        "role": role_target(fleet.organization_id, "lead"),
    }
    return Layer(scope, targets[scope], f"{scope} X")


def put(scene: Scene, where: Layer, name: str, body: str, *, plain: bool = False) -> int:
    with scene.engine.begin() as connection:
        return add_version(connection, where, name, body, plain=plain, note=None, by="test")[0]


def deliver(scene: Scene, where: Layer, **versions: int | None) -> None:
    with scene.engine.begin() as connection:
        promote(connection, where, {f"{name}.md": number for name, number in versions.items()}, by="test")


def file(scene: Scene, agent_id: UUID, name: str) -> str:
    with scene.engine.connect() as connection:
        return (Path(load_agent(connection, agent_id, main=True).workspace) / name).read_text()


def checked(scene: Scene, where: Layer, *names: str) -> LayerCheck:
    with scene.engine.connect() as connection:
        candidates = {name: version_of(connection, where, name) for name in names}
        return check_layer(connection, where, candidates, BASE_URL)


def test_a_version_is_delivered_once_it_is_promoted_and_taken_back(scene: Scene) -> None:
    ada, ben = scene.agent("Ada"), scene.agent("Ben", board_id=scene.fleet.add_board("Other"))
    scene.provision(ada, ben)
    shipped = {agent: file(scene, agent, "SOUL.md") for agent in (ada, ben)}
    quiet = {"include_main": False}
    with scene.counting() as before:
        assert scene.sync(**quiet).result["files_written"] == 0
    where = layer(scene)
    put(scene, where, "parts/tone", "calm\n")
    assert put(scene, where, "SOUL.md", 'I am {{ agent_name }}, {% include "parts/tone" %}!') == 1
    assert put(scene, where, "SOUL.md", 'I am {{ agent_name }}, {% include "parts/tone" %}!') == 1
    assert scene.sync(**quiet).result["files_written"] == 0
    with scene.engine.begin() as connection:
        changed = promote(connection, where, {"SOUL.md": 1, "parts/tone": 1}, by="test")
        assert changed == ["SOUL.md", "parts/tone"]
        assert promote(connection, where, {"SOUL.md": 1}, by="test") == []
    job = scene.sync(**quiet)
    assert (job.result["files_written"], job.warnings) == (1, [])
    assert file(scene, ada, "SOUL.md") == "I am Ada, calm!"
    assert file(scene, ben, "SOUL.md") == shipped[ben]
    with scene.counting() as after:
        assert scene.sync(**quiet).result["files_written"] == 0
    assert (after.calls, after.statements, after.messages) == (
        before.calls,
        before.statements,
        before.messages,
    )
    put(scene, where, "SOUL.md", "{{ second }}", plain=True)
    deliver(scene, where, SOUL=2)
    assert scene.sync(**quiet).result["files_written"] == 1
    assert file(scene, ada, "SOUL.md") == "{{ second }}"
    for expected in ("I am Ada, calm!", shipped[ada]):
        with scene.engine.begin() as connection:
            revert(connection, where, "SOUL.md", by="test")
        assert scene.sync(**quiet).result["files_written"] == 1
        assert file(scene, ada, "SOUL.md") == expected


@on_one_release
def test_the_nearest_layer_counts_unless_the_agent_is_pinned(scene: Scene) -> None:
    ada = scene.agent("Ada", lead=True)
    ben = scene.agent("Ben", identity_template="${{ x }}")
    wide: list[Scope] = ["organization", "gateway", "board", "role"]
    for scope in wide:
        put(scene, layer(scene, scope), "SOUL.md", f"{scope} 1")
        deliver(scene, layer(scene, scope), SOUL=1)
    own = Layer("agent", str(ada), "agent Ada")
    put(scene, own, "SOUL.md", "agent 1")
    put(scene, layer(scene, "role"), "SOUL.md", "role 2")

    def souls() -> tuple[str, str]:
        with scene.engine.connect() as connection:
            records = [load_agent(connection, agent, main=True) for agent in (ada, ben)]
        first, second = (record.layers.counting()["SOUL.md"] for record in records)
        return f"{first.title}: {first.text}", second.text

    assert souls() == ("SOUL.md of role lead, version 1: role 1", "board 1")
    deliver(scene, own, SOUL=1)
    assert souls() == ("SOUL.md of agent Ada, version 1: agent 1", "board 1")
    deliver(scene, own, SOUL=None)
    deliver(scene, layer(scene, "board"), SOUL=None)
    pin = """
        INSERT INTO provisioner.template_pins (agent_id, scope, target_id, name, version)
        VALUES (:agent, 'role', :target, 'SOUL.md', 1)
    """
    scene.execute(pin, agent=ada, target=layer(scene, "role").target)
    deliver(scene, layer(scene, "role"), SOUL=2)
    assert souls() == ("SOUL.md of role lead, version 1: role 1", "gateway 1")
    scene.execute("DELETE FROM provisioner.template_pins")
    assert souls() == ("SOUL.md of role lead, version 2: role 2", "gateway 1")
    ways: list[tuple[Scope, bool]] = [("organization", True), ("board", False), ("gateway", True)]
    for scope, plain in ways:
        with scene.engine.begin() as connection:
            set_override_form(connection, layer(scene, scope), plain, by="test")
            assert load_agent(connection, ben).layers.plain_overrides is (scope == "organization")
    with scene.engine.begin() as connection:
        set_override_form(connection, layer(scene, "board"), None, by="test")
    scene.provision(ben)
    assert file(scene, ben, "IDENTITY.md") == "${{ x }}"


@on_one_release
def test_a_layer_that_fails_for_one_agent_is_found_and_stops_nobody_else(scene: Scene) -> None:
    names = ("Ada", "Ben", "Cid")
    agents = {name: scene.agent(name, lead=name == "Ben") for name in names}
    scene.provision(*agents.values())
    where = layer(scene, "gateway")
    put(scene, where, "SOUL.md", '{% include "parts/mood" %}')
    put(
        scene,
        where,
        "parts/mood",
        "\n{% if role == 'lead' %}{{ agent_name|replace('', 'x' )|trim(user_name) }}",
    )
    found = checked(scene, where, "SOUL.md", "parts/mood")
    assert found.agents == 3
    assert {fault.says.partition(":")[0] for fault in found.faults} == {
        "the part parts/mood of gateway X, version 1, line 2"
    }
    scene.execute("UPDATE users SET name = repeat('y', 101)")
    put(scene, where, "parts/mood", "a\n{% if role == 'lead' %}{{ agent_name|trim(user_name) }}{% endif %}")
    found = checked(scene, where, "SOUL.md", "parts/mood")
    assert [fault.agent for fault in found.faults] == ["Ben"]
    says = "the part parts/mood of gateway X, version 2, line 2: trim takes at most 100 characters"
    assert found.faults[0].says == says
    # Nobody is asked whose own column is nearer, or a nearer layer.
    scene.execute("UPDATE agents SET soul_template = 'mine' WHERE name = 'Ben'")
    assert checked(scene, where, "SOUL.md", "parts/mood").agents == 2
    scene.execute("UPDATE agents SET soul_template = NULL")
    with scene.engine.begin() as connection:
        promote(connection, where, {"SOUL.md": 1, "parts/mood": 2}, by="test")
    job = scene.sync(include_main=False)
    assert job.status == "partial"
    rows = scene.rows(job.id)
    assert {name: row.status for name, row in rows.items()} == {
        "Ada": "succeeded",
        "Ben": "failed",
        "Cid": "succeeded",
    }
    assert rows["Ben"].reason_code == "broken_layer"
    gateway = scene.row("SELECT name FROM gateways").name
    assert rows["Ben"].reason == f"T{says[1:]}".replace("gateway X", f"gateway {gateway}")
    assert file(scene, agents["Cid"], "SOUL.md") == "a"


def test_a_file_that_the_release_does_not_take_is_said_and_asked_for_once(scene: Scene) -> None:
    ada = scene.agent("Ada")
    where = layer(scene)
    put(scene, where, "RUNBOOK.md", "Call {{ user_name }}.")
    put(scene, where, "SELF.md", "Me.")
    deliver(scene, where, RUNBOOK=1, SELF=1)
    scene.provision(ada)
    job = scene.sync(include_main=False)
    refused = [
        f"This gateway does not take {name}, which a layer of templates holds."
        for name in ("RUNBOOK.md", "SELF.md")
    ]
    (row,) = scene.rows(job.id).values()
    assert (row.status, row.warnings) == ("succeeded", refused)
    assert row.files["RUNBOOK.md"] == {"action": "unsupported", "size": len("Call Ada Lovelace.")}
    with scene.counting() as costs:
        scene.sync(include_main=False)
    assert "agents.files.get" not in costs.calls


def test_a_file_beyond_the_fixed_set_is_delivered_where_a_release_takes_it(
    engine: Engine, hands: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = RELEASES["2026.9.6"]
    later = replace(release, accepted_files=(*release.accepted_files, "RUNBOOK.md"))
    monkeypatch.setitem(RELEASES, "2026.9.6", later)
    with Simulator("2026.9.6", token="gateway-token", state_dir=tmp_path / "gateway") as simulator:
        scene = make_scene(simulator, engine, hands(retry_inline_s=5))
        ada = scene.agent("Ada")
        put(scene, layer(scene), "RUNBOOK.md", "Call {{ user_name }}.")
        deliver(scene, layer(scene), RUNBOOK=1)
        scene.provision(ada)
        assert file(scene, ada, "RUNBOOK.md") == "Call Ada Lovelace."
        assert scene.sync(include_main=False).result["files_written"] == 0


@on_one_release
def test_what_a_layer_uncovers_is_checked_and_of_a_pinned_agent_its_own_version(scene: Scene) -> None:
    ada, ben = scene.agent("Ada"), scene.agent("Ben", board_id=scene.fleet.add_board("Other"))
    board, gateway = layer(scene, "board"), layer(scene, "gateway")
    put(scene, board, "SOUL.md", "fine")
    deliver(scene, board, SOUL=1)
    put(scene, gateway, "SOUL.md", "{{ agent_name|trim(board_objective) }}")
    scene.execute("UPDATE boards SET objective = repeat('y', 101) WHERE id = :id", id=scene.fleet.board_id)
    assert (checked(scene, gateway, "SOUL.md").agents, checked(scene, gateway, "SOUL.md").faults) == (1, ())
    deliver(scene, gateway, SOUL=1)
    with scene.engine.connect() as connection:
        (fault,) = check_layer(connection, board, {"SOUL.md": None}, BASE_URL).faults
        assert check_layer(connection, gateway, {"SOUL.md": None}, BASE_URL).agents == 0
    assert (fault.agent_id, fault.says.partition(",")[0]) == (ada, f"SOUL.md of gateway {fleet_name(scene)}")

    put(scene, gateway, "SOUL.md", "{{ unknown }}")
    pin = """
        INSERT INTO provisioner.template_pins (agent_id, scope, target_id, name, version)
        VALUES (:agent, 'gateway', :target, 'SOUL.md', :version)
    """
    scene.execute(pin, agent=ben, target=gateway.target, version=1)
    assert checked(scene, gateway, "SOUL.md").faults == ()
    scene.execute("UPDATE provisioner.template_pins SET version = 2")
    put(scene, gateway, "SOUL.md", "fine")
    assert [each.agent for each in checked(scene, gateway, "SOUL.md").faults] == ["Ben"]


def fleet_name(scene: Scene) -> str:
    return str(scene.row("SELECT name FROM gateways").name)
