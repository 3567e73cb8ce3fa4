from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from worker.cli.app import COMMANDS, app, load

EXPECTED = {
    "adopt",
    "rollback",
    "rollout",
    "restore",
    "bundles",
    "orphans",
    "drift",
    "demo",
    "serve",
    "migrate",
    "gateway",
    "board",
    "agent",
    "provision",
    "update",
    "delete",
    "heartbeats",
    "settings",
    "sync",
    "cancel",
    "retry",
    "prune",
    "lead",
    "main",
    "jobs",
    "job",
    "doctor",
    "schedule",
    "metrics",
    "owners",
    "device",
    "webhook",
    "window",
    "template",
}
PAGES = [
    [],
    *([name] for name in sorted(EXPECTED)),
    *([noun, verb] for noun in ("gateway", "board", "agent") for verb in ("add", "list")),
    *(["schedule", verb] for verb in ("add", "list", "remove")),
    ["device", "show"],
    *(["settings", verb] for verb in ("set", "unset", "show")),
    *(["owners", verb] for verb in ("set", "unset", "show")),
    *(
        ["template", verb]
        for verb in ("set", "check", "promote", "revert", "list", "show", "diff", "history", "overrides")
    ),
    *(["window", verb] for verb in ("add", "list", "remove")),
    *(["webhook", verb] for verb in ("add", "list", "test", "secret", "retry", "remove")),
]


def test_help_lists_the_commands_that_exist() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout.split("Commands", 1)[1]
    assert set(re.findall(r"^\u2502 ([a-z]+)\s", listed, re.MULTILINE)) == EXPECTED


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_each_page_of_help_fits_80_columns(page: list[str]) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*page, "--help"])
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "\u2026" not in result.stdout  # nothing is cut


def test_paragraphs_of_help_are_filled_to_the_width_of_the_terminal() -> None:
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["serve", "--help"]).stdout
    paragraph = next(part for part in re.split(r"\n\s*\n", shown) if "migrated first" in part)
    *lines, _ = paragraph.splitlines()
    assert len(lines) > 1
    assert all(len(line.rstrip()) > 70 for line in lines)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_command_is_listed_by_the_first_sentence_of_its_help(name: str) -> None:
    assert load(name).name == name
    assert COMMANDS[name][1] == " ".join(load(name).get_short_help_str(limit=200).split())


def test_the_list_of_commands_needs_no_database_and_no_gateway() -> None:
    statement = (
        "import sys, worker.cli.app as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: print('', *sys.modules, sep=chr(10))"
    )
    ran = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True)
    assert "Commands" in ran.stdout
    assert {"sqlalchemy", "psycopg", "websockets", "jinja2", "celery"}.isdisjoint(ran.stdout.splitlines())


def test_an_unknown_command_is_wrong_use() -> None:
    assert CliRunner().invoke(app, ["rovision"]).exit_code == 2
