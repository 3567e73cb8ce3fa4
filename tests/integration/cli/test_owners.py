"""owners set, unset and show."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT scope, name, owner FROM provisioner.file_owners ORDER BY scope")
        )
        return [tuple(row) for row in found]


def test_owners_are_said_by_gateway_or_board(fleet: Provisioner, engine: Engine) -> None:
    agent = fleet.json("agent", "list")[0]
    said = fleet.run("owners", "set", "SOUL.md", "ours", "--board", agent["board"]).stdout
    assert f"Owner of SOUL.md for board {agent['board']}: ours." in said
    assert f"provisioner sync {agent['gateway']} --board" in said
    fleet.run("owners", "set", "SOUL.md", "agent", "--gateway", agent["gateway"])
    fleet.run("owners", "set", "SOUL.md", "merged", "--gateway", agent["gateway"])
    assert rows(engine) == [("board", "SOUL.md", "ours"), ("gateway", "SOUL.md", "merged")]
    result = fleet.run("owners", "show")
    assert "SOUL.md" in result.stdout
    assert "BOOTSTRAP.md ours" in result.stdout + result.stderr
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    fleet.run("owners", "unset", "SOUL.md", "--board", agent["board"])
    assert rows(engine) == [("gateway", "SOUL.md", "merged")]


def test_wrong_use_of_owners_is_said(fleet: Provisioner, engine: Engine) -> None:
    gateway = fleet.json("agent", "list")[0]["gateway"]
    for said, given in {
        "one of ours, agent and merged": ("set", "SOUL.md", "mine", "--gateway", gateway),
        "a file without a folder": ("set", "notes/SOUL.md", "ours", "--gateway", gateway),
        "Name one of --gateway, --board": ("set", "SOUL.md", "ours"),
        "There is no owner of 'SOUL.md'": ("unset", "SOUL.md", "--gateway", gateway),
    }.items():
        result = fleet.run("owners", *given)
        assert result.exit_code == 2
        assert said in " ".join(result.stderr.split())
    assert rows(engine) == []
