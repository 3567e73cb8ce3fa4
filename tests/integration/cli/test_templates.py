"""template set, check, promote, revert, list, show, diff, history and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker.cli.commands.templates import SINCE
from worker.database_gate import DatabaseGate
from worker.worker_row import WorkerRow

BOARD = ("--board", "Launch")
LONG_NAME = """
    WITH one AS (
        INSERT INTO users (id, clerk_user_id, name, is_super_admin)
        VALUES (gen_random_uuid(), 'u', repeat('y', 101), false) RETURNING id
    ), others AS (UPDATE organization_members SET role = 'member')
    INSERT INTO organization_members
        (id, organization_id, user_id, role, all_boards_read, all_boards_write, created_at, updated_at)
    SELECT gen_random_uuid(), o.id, one.id, 'owner', true, true, now(), now() FROM organizations o, one
"""
"""Gives the organization an owner with a very long name."""


def put(fleet: Provisioner, tmp_path: Path, name: str, body: str, *more: str, code: int = 0) -> str:
    path = tmp_path / "text.txt"
    path.write_text(body)
    result = fleet.run("template", "set", name, str(path), *more)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_from_the_first_version_to_the_way_back(fleet: Provisioner, tmp_path: Path) -> None:
    said = put(fleet, tmp_path, "SOUL.md", "I am {{ agent_name }}.\n", *BOARD, "--note", "the first")
    assert "SOUL.md of board Launch, version 1, is set." in said
    assert "provisioner template promote SOUL.md --board Launch" in said
    assert "holds that text already" in put(fleet, tmp_path, "SOUL.md", "I am {{ agent_name }}.\n", *BOARD)
    promoted = fleet.run("template", "promote", "SOUL.md", *BOARD).stdout
    assert "Rendered for 2 agents." in promoted
    assert "Apply it: provisioner sync g --board Launch" in promoted
    assert "already" in fleet.run("template", "promote", "SOUL.md", *BOARD).stdout
    put(fleet, tmp_path, "SOUL.md", "I am {{ agent_name }}, the second.\n", *BOARD)
    changed = fleet.run("template", "diff", "SOUL.md", *BOARD).stdout
    assert "-I am {{ agent_name }}.\n+I am {{ agent_name }}, the second.\n" in changed
    assert fleet.run("template", "show", "SOUL.md", *BOARD).stdout == "I am {{ agent_name }}, the second.\n"
    first = fleet.json("template", "show", "SOUL.md", *BOARD, "--version", "1")
    assert (first["text"], first["is_promoted"]) == ("I am {{ agent_name }}.\n", True)
    assert fleet.run("template", "promote", "SOUL.md", *BOARD).exit_code == 0
    assert [row["version"] for row in fleet.json("template", "history", "SOUL.md", *BOARD)] == [2, 1]
    history = fleet.run("template", "history", "SOUL.md", *BOARD).stdout
    assert ", now" in history
    assert "the first" in history
    assert fleet.json("template", "list")[0]["promoted"] == 2
    put(fleet, tmp_path, "SOUL.md", "The third.", *BOARD)
    told = fleet.run("template", "promote", "SOUL.md", *BOARD).stdout
    assert f"Promoted for board {BOARD[1]}: SOUL.md version 3." in told
    for number in (2, 1):
        assert fleet.json("template", "revert", "SOUL.md", *BOARD)["templates"][0]["version"] == number
    told = fleet.run("template", "revert", "SOUL.md", *BOARD).stdout
    assert f"Taken away from board {BOARD[1]}: SOUL.md. What is behind it counts again." in told
    assert "nothing to go back from" in fleet.refused("template", "revert", "SOUL.md", *BOARD)
    fleet.run("template", "promote", "SOUL.md", *BOARD)
    taken = fleet.run("template", "promote", "SOUL.md", "--none", *BOARD).stdout
    assert "Taken away from board Launch: SOUL.md. What is behind it counts again." in taken
    assert "Promoted for board Launch" in fleet.run("template", "revert", "SOUL.md", *BOARD).stdout
    fleet.run("template", "promote", "SOUL.md", "--none", *BOARD)
    assert fleet.json("template", "list")[0]["promoted"] is None


def test_a_layer_that_breaks_one_agent_is_refused_and_names_it(
    fleet: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    put(fleet, tmp_path, "SOUL.md", "fine", *BOARD)
    fleet.run("template", "promote", "SOUL.md", *BOARD)
    put(
        fleet,
        tmp_path,
        "parts/tone",
        "x\n{% if role == 'lead' %}{{ agent_name|trim(user_name) }}{% endif %}",
        *BOARD,
    )
    put(fleet, tmp_path, "SOUL.md", '{% include "parts/tone" %}', *BOARD)
    assert "set and promote that first" in fleet.run("template", "promote", "SOUL.md", *BOARD).stderr
    both = ("SOUL.md", "parts/tone")
    assert fleet.run("template", "check", *both, *BOARD).exit_code == 0
    execute(engine, LONG_NAME)
    result = fleet.run("template", "promote", *both, *BOARD)
    assert result.exit_code == 1
    says = "Ada: the part parts/tone of board Launch, version 1, line 2: trim takes at most 100 characters"
    assert result.stderr.splitlines() == [says, "Nothing is promoted: it fails for 1 of 2 agents."]
    checked = fleet.json("template", "check", *BOARD, code=1)
    assert [(fault["agent"], f"Ada: {fault['says']}") for fault in checked["faults"]] == [("Ada", says)]
    shown = {
        row["name"]: row["promoted"] for row in fleet.json("template", "list") if row["scope"] == "board"
    }
    assert shown == {"SOUL.md": 1, "parts/tone": None}


def test_what_an_agents_files_are_made_from(fleet: Provisioner, engine: Engine, tmp_path: Path) -> None:
    put(fleet, tmp_path, "SOUL.md", "{{ x }}", "--role", "lead", "--plain")
    put(fleet, tmp_path, "IDENTITY.md", "me", "--organization", "Standalone")
    for name, where in (("SOUL.md", ("--role", "lead")), ("IDENTITY.md", ("--organization", "Standalone"))):
        promoted = fleet.run("template", "promote", name, *where)
        assert promoted.exit_code == 0, promoted.output
    execute(engine, "UPDATE agents SET identity_template = 'mine' WHERE name = 'Ada'")
    made = {row["name"]: row["from"] for row in fleet.json("template", "list", "--agent", "Ada")}
    assert made["SOUL.md"] == "SOUL.md of role lead, version 1"
    assert made["IDENTITY.md"] == "agents.identity_template"
    assert made["HEARTBEAT.md"] == "board/HEARTBEAT_LEAD.md.j2"
    ben = {row["name"]: row["from"] for row in fleet.json("template", "list", "--agent", "Ben")}
    assert (ben["SOUL.md"], ben["IDENTITY.md"]) == (
        "shared/SOUL.md.j2",
        "IDENTITY.md of the organization, version 1",
    )
    listed = fleet.run("template", "list")
    assert all(len(line) <= 80 for line in listed.stdout.splitlines())
    assert "TEMPLATES_DIR and the shipped templates: version " in listed.stderr
    assert "You" in fleet.run("template", "show", "SOUL.md").stdout
    fleet.run("template", "overrides", "plain", "--agent", "Ada")
    assert "are read as plain text" in fleet.run("template", "list").stderr
    assert fleet.json("template", "overrides", "inherit", "--agent", "Ada")["plain"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("set", "TOOLS.md", "FILE", *BOARD), "TOOLS.md holds the agent's token"),
        (("set", "soul.md", "FILE", *BOARD), "would be taken for SOUL.md: write SOUL.md"),
        (("set", "../x", "FILE", *BOARD), "can be no template's name"),
        (("set", "SOUL.md", "nowhere", *BOARD), "The file nowhere cannot be read"),
        (("set", "SOUL.md", "FILE"), "Name one of --organization"),
        (("set", "SOUL.md", "FILE", *BOARD, "--gateway", "g"), "Name one of --organization"),
        (("set", "SOUL.md", "FILE", "--role", "boss"), "--role is lead, member or main, not 'boss'"),
        (("show", "SOUL.md", *BOARD), "There is no SOUL.md in the layer of board Launch"),
        (("show", "RUNBOOK.md"), "There is no shipped template of 'RUNBOOK.md'"),
        (("promote", "SOUL.md", *BOARD, "--none", "--version", "1"), "--version or --none, not both"),
        (("promote", "SOUL.md", "USER.md", *BOARD, "--version", "1"), "--version is for one NAME"),
        (("check", *BOARD), "There is no template in the layer of board Launch"),
        (("overrides", "text", *BOARD), "FORM is plain, template or inherit"),
        (("history", "SOUL.md", *BOARD), "There is no SOUL.md in the layer"),
    ],
)
def test_wrong_use(fleet: Provisioner, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "text.txt").write_text("text")
    given = [str(tmp_path / "text.txt") if each == "FILE" else each for each in arguments]
    assert sentence in fleet.refused("template", *given)


def test_texts_that_no_agent_could_use_are_refused(fleet: Provisioner, tmp_path: Path) -> None:
    assert "text.txt, line 1: expected" in put(fleet, tmp_path, "SOUL.md", "{{ a b }}", *BOARD, code=2)
    assert "--plain" in put(fleet, tmp_path, "SOUL.md", "a\n{{ x.y }}", *BOARD, code=2)
    assert "longer than 64 KB" in put(fleet, tmp_path, "SOUL.md", "x" * 65_537, *BOARD, code=2)
    (tmp_path / "latin").write_bytes(b"\xe4")
    assert "not UTF-8" in fleet.refused("template", "set", "SOUL.md", str(tmp_path / "latin"), *BOARD)
    result = fleet.run("template", "set", "SOUL.md", "-", *BOARD, "--plain", stdin="${{ secrets.X }}\n")
    assert "version 1, is set" in result.stdout
    assert fleet.run("template", "show", "SOUL.md", *BOARD).stdout == "${{ secrets.X }}\n"


def test_layers_wait_until_no_older_worker_is_left(
    fleet: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    execute(engine, "INSERT INTO provisioner.workers (name) VALUES ('old:1')")
    refused = put(fleet, tmp_path, "SOUL.md", "x", *BOARD, code=1)
    assert "A worker of an older release, which knows nothing of layers of templates" in refused
    assert "old:1" in refused
    execute(engine, "UPDATE provisioner.workers SET revision = '0018'")
    put(fleet, tmp_path, "SOUL.md", "x", *BOARD, code=1)
    for row in (f"revision = '{SINCE}'", "revision = NULL, seen_at = now() - interval '61 s'"):
        execute(engine, f"UPDATE provisioner.workers SET {row}")
        put(fleet, tmp_path, "SOUL.md", "x", *BOARD)
    execute(engine, "UPDATE provisioner.workers SET seen_at = now()")
    assert "older release" in fleet.refused("template", "promote", "SOUL.md", *BOARD, code=1)
    execute(engine, "DELETE FROM provisioner.workers")
    WorkerRow(engine, DatabaseGate()).refresh()
    assert "Promoted" in fleet.run("template", "promote", "SOUL.md", *BOARD).stdout


def test_what_is_left_of_a_board_that_is_gone_is_pruned(
    fleet: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    put(fleet, tmp_path, "SOUL.md", "of the board", *BOARD)
    fleet.run("template", "promote", "SOUL.md", *BOARD)
    for where in (("--role", "lead"), ("--gateway", "g")):
        put(fleet, tmp_path, "SOUL.md", "kept", *where)
    board = fleet.json("template", "list")[1]["target_id"]
    execute(engine, "UPDATE agents SET board_id = NULL")
    execute(engine, "DELETE FROM boards")
    assert fleet.json("prune", "--older-than", "1h")["templates"] == 0
    assert fleet.run("template", "show", "SOUL.md", "--board", board).stdout == "of the board\n"
    for table, moment in (("template_versions", "set_at"), ("template_promotions", "since")):
        execute(engine, f"UPDATE provisioner.{table} SET {moment} = now() - interval '2 h'")
    assert fleet.json("prune", "--older-than", "1h", "--dry-run")["templates"] == 1
    assert "1 version of templates" in fleet.run("prune", "--older-than", "1h").stdout
    assert [row["scope"] for row in fleet.json("template", "list")] == ["gateway", "role", "shipped"]
    with engine.connect() as connection:
        assert (
            connection.execute(text("SELECT count(*) FROM provisioner.template_promotions")).scalar_one() == 0
        )


def test_a_secret_in_a_template_is_said_and_not_shown(fleet: Provisioner, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Authorization: Bearer q2v5hJMJ3C51gN8WCOWE\n")
    result = fleet.run("template", "set", "SOUL.md", str(tmp_path / "text.txt"), *BOARD)
    assert "looks like a secret" in result.stderr
    assert "q2v5" not in fleet.run("template", "show", "SOUL.md", *BOARD).stdout


def test_a_secret_that_a_template_names_is_shown_nowhere_else_in_it(
    fleet: Provisioner, tmp_path: Path
) -> None:
    body = "password: correct-horse-battery\nNever say correct-horse-battery.\n"
    assert "provisioner template promote" in put(fleet, tmp_path, "SOUL.md", body, *BOARD)
    for command in ("show", "diff"):
        asked = ("template", command, "SOUL.md", *BOARD)
        for shown in (fleet.run(*asked).stdout, str(fleet.json(*asked))):
            assert "Never say <masked>." in shown
            assert "correct-horse" not in shown
