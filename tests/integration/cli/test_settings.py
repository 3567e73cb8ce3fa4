"""settings set, unset and show."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker.gateway.entry_settings import FieldRecord
from worker.records.agent_settings import record_fields

SECRET = "sk-0123456789abcdef0123"


def rows(engine: Engine) -> list[tuple[str, str, Any, bool]]:
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT scope, field, value, locked FROM provisioner.agent_settings ORDER BY scope, field")
        )
        return [tuple(row) for row in found]


@pytest.fixture
def names(fleet: Provisioner) -> tuple[str, str, str]:
    agent = fleet.json("agent", "list")[0]
    return agent["gateway"], agent["board"], agent["name"]


def test_a_value_is_json_or_a_plain_text(
    fleet: Provisioner, engine: Engine, names: tuple[str, str, str]
) -> None:
    gateway, board, agent = names
    said = fleet.run("settings", "set", "model", "stub/m", "--board", board).stdout
    assert f'model = "stub/m" for board {board}' in said
    assert f"provisioner sync {gateway}" in said
    fleet.run("settings", "set", "skills", '["a", "b"]', "--agent", agent)
    fleet.run(
        "settings", "set", "tools", '{"profile": "minimal", "exec": {"ask": "off"}}', "--gateway", gateway
    )
    fleet.run("settings", "set", "params.note", "NaN", "--agent", agent)
    assert rows(engine) == [
        ("agent", "params.note", "NaN", False),
        ("agent", "skills", ["a", "b"], False),
        ("board", "model", "stub/m", False),
        ("gateway", "tools.exec.ask", "off", False),
        ("gateway", "tools.profile", "minimal", False),
    ]
    shown = fleet.run("settings", "show").stdout
    assert all(field in shown for _, field, _, _ in rows(engine))
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_set_replaces_what_overlaps_and_an_unset_takes_all_inside(
    fleet: Provisioner, engine: Engine, names: tuple[str, str, str]
) -> None:
    agent = ("--agent", names[2])
    fleet.run("settings", "set", "model", '{"primary": "a/b", "fallbacks": []}', *agent)
    result = fleet.run("settings", "set", "model", "c/d", *agent)
    assert "It replaces model.fallbacks and model.primary." in result.stderr
    assert rows(engine) == [("agent", "model", "c/d", False)]
    fleet.run("settings", "set", "tools", '{"profile": "minimal", "deny": ["x"]}', *agent)
    assert fleet.json("settings", "unset", "tools", *agent)["unset"] == ["tools.deny", "tools.profile"]
    assert rows(engine) == [("agent", "model", "c/d", False)]
    assert "There is no setting 'tools'" in fleet.refused("settings", "unset", "tools", *agent)


def test_what_counts_for_an_agent_is_shown(
    fleet: Provisioner, engine: Engine, names: tuple[str, str, str]
) -> None:
    gateway, board, agent = names
    fleet.run("settings", "set", "tools.profile", "minimal", "--gateway", gateway, "--lock")
    fleet.run("settings", "set", "model", "a/b", "--board", board)
    result = fleet.run("settings", "set", "tools.profile", "full", "--agent", agent)
    assert "It has no effect: tools.profile is locked for the gateway." in result.stderr
    with engine.begin() as connection:
        row = connection.execute(
            text("SELECT id, gateway_id FROM agents WHERE name = :name"), {"name": agent}
        ).one()
        written = {"model": FieldRecord(("a/b",), "owner/s"), "tools": FieldRecord(({},), None)}
        written |= {"skills": FieldRecord((["x"],), None)}
        record_fields(connection, row.gateway_id, {f"mc-{row.id}": written})
    shown = {each["field"]: each for each in fleet.json("settings", "show", "--agent", agent)}
    assert shown["model"] == {
        "field": "model",
        "value": "a/b",
        "scope": "board",
        "locked": False,
        "written": True,
        "had": "owner/s",
    }
    assert (shown["tools.profile"]["value"], shown["tools.profile"]["locked"]) == ("minimal", True)
    assert shown["skills"]["scope"] is None
    assert "tools" not in shown
    page = fleet.run("settings", "show", "--agent", agent)
    assert 'before: "owner/s"' in page.stdout.replace("\n", "")
    assert "tools.profile of the agent does not count: the gateway sets tools.profile." in page.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", "model", "a/b"), "Name one of --gateway, --board and --agent."),
        (
            ("set", "model", "a/b", "--board", "B", "--agent", "A"),
            "Name one of --gateway, --board and --agent.",
        ),
        (("set", "model", "a/b", "--board", "Nowhere"), "There is no board 'Nowhere'"),
        (("set", "name", "Eve", "--agent", "{agent}"), "An agent's name is not a setting"),
        (
            ("set", "heartbeat", '{"every": "1h"}', "--agent", "{agent}"),
            "it comes from agents.heartbeat_config",
        ),
        (("set", "a b", "1", "--agent", "{agent}"), "'a b' is not a field of an agent's entry"),
        (("set", "model", "null", "--agent", "{agent}"), "holds null"),
        (("set", "params.list", "[[null]]", "--agent", "{agent}"), "holds null"),
        (("set", "a.b.c.d.e.f.g.h.i", "1", "--agent", "{agent}"), "nested deeper than 8 levels"),
        (("set", "skills", "[" * 900 + "]" * 900, "--agent", "{agent}"), "nested too deep"),
        (("set", "skills", "x" * 70_000, "--agent", "{agent}"), "longer than 65536 characters"),
        (("set", "params.note", SECRET, "--agent", "{agent}"), "looks like a secret"),
        (
            ("set", "sandbox.docker.env", '{"API_KEY": "hunter2"}', "--agent", "{agent}"),
            "looks like a secret",
        ),
        (("set", "model", "a/b", "--agent", "{agent}", "--lock"), "nothing is nearer than an agent"),
        (("unset", "model", "--agent", "{agent}"), "There is no setting 'model'"),
    ],
)
def test_what_cannot_be_set_is_refused_without_its_value(
    fleet: Provisioner, engine: Engine, names: tuple[str, str, str], arguments: tuple[str, ...], says: str
) -> None:
    given = [each.replace("{agent}", names[2]) if "{agent}" in each else each for each in arguments]
    said = " ".join(fleet.refused("settings", *given).split())
    assert says in said
    assert SECRET not in said
    assert "hunter2" not in said
    assert rows(engine) == []


def test_settings_of_what_is_gone_are_shown_unset_and_pruned(
    fleet: Provisioner, engine: Engine, names: tuple[str, str, str]
) -> None:
    gone = "6b1f3a52-2f0f-4c55-9c0e-0d1d2e3f4a5b"
    with engine.begin() as connection:
        for field in ("model", "skills"):
            connection.execute(
                text(
                    "INSERT INTO provisioner.agent_settings (scope, target_id, field, value, updated_at)"
                    " VALUES ('agent', :id, :field, '\"x\"', now() - interval '40 days')"
                ),
                {"id": gone, "field": field},
            )
    fleet.run("settings", "set", "model", "a/b", "--agent", names[2])
    assert "(gone)" in fleet.run("settings", "show").stdout
    assert fleet.json("settings", "unset", "model", "--agent", gone)["unset"] == ["model"]
    assert fleet.json("prune", "--dry-run")["settings"] == 1
    assert fleet.json("prune")["settings"] == 1
    assert rows(engine) == [("agent", "model", "a/b", False)]


def test_the_help_fits_a_terminal(fleet: Provisioner) -> None:
    for verb in ((), ("set",), ("unset",), ("show",)):
        shown = fleet.run("settings", *verb, "--help").stdout
        assert all(len(line) <= 80 for line in shown.splitlines()), shown
