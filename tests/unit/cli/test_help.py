from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from worker.cli.main import app

COMMANDS = {
    "demo",
    "migrate",
    "gateway",
    "board",
    "agent",
    "provision",
    "update",
    "delete",
    "heartbeats",
    "lead",
    "main",
    "jobs",
    "job",
    "doctor",
    "device",
}
PAGES = [
    [],
    *([name] for name in sorted(COMMANDS)),
    *([noun, verb] for noun in ("gateway", "board", "agent") for verb in ("add", "list")),
    ["device", "show"],
]


def test_help_lists_the_commands_that_exist() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout.split("Commands", 1)[1]
    assert set(re.findall(r"^\u2502 ([a-z]+)\s", listed, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_each_page_of_help_fits_80_columns(page: list[str]) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*page, "--help"])
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "\u2026" not in result.stdout  # nothing is cut


def test_an_unknown_command_is_wrong_use() -> None:
    assert CliRunner().invoke(app, ["rovision"]).exit_code == 2
