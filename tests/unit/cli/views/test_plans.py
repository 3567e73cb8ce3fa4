"""A dry run on a page, from results made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.views.test_jobs import shown
from worker.cli.views.files import coloured, planned_files
from worker.cli.views.plans import nothing_to_do, roster_changes

QUIET: dict[str, Any] = {
    "files": {
        "A.md": {"action": "unchanged"},
        "B.md": {"action": "preserved"},
        "C.md": {"action": "unsupported"},
    },
    "roster": {"action": "unchanged", "changes": {}},
    "token": "reused",
}


@pytest.mark.parametrize(
    ("change", "idle"),
    [
        ({}, True),
        ({"token": "new"}, False),
        ({"roster": {"action": "update", "changes": {"name": "B"}}}, False),
        ({"files": {"A.md": {"action": "create"}}}, False),
        ({"files": {"A.md": {"action": "update"}}}, False),
    ],
)
def test_only_a_plan_that_writes_nothing_has_nothing_to_do(change: dict[str, Any], idle: bool) -> None:
    assert nothing_to_do({**QUIET, **change}) is idle


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"action": "create"}, "not there"),
        ({"action": "update", "changed_by": "templates"}, "templates or facts changed"),
        ({"action": "update", "changed_by": "agent"}, "changed on the gateway"),
        ({"action": "update", "changed_by": "both"}, "changed on both sides"),
        ({"action": "update"}, "nothing on record"),
        ({"action": "update", "token": "new", "changed_by": "both"}, "new token; changed on both sides"),
        ({"action": "preserved", "changed_by": "agent"}, "the agent's own; changed on the gateway"),
        ({"action": "unsupported"}, "not taken by this gateway"),
    ],
)
def test_each_line_says_what_happens_and_who_made_it_differ(file: dict[str, Any], words: str) -> None:
    (line,) = shown(planned_files({"TASK_SOUL.md": {"size": 123_456, **file}}))[1:]
    assert str(file["action"]) in line
    assert words in line
    assert len(line.rstrip()) <= 78


def test_what_is_written_comes_first() -> None:
    files = {"A.md": {"action": "unsupported"}, "B.md": {"action": "unchanged"}, "C.md": {"action": "update"}}
    assert [line.split()[0] for line in shown(planned_files(files))[1:]] == ["C.md", "B.md", "A.md"]


def test_a_roster_patch_is_a_line_a_value() -> None:
    patch = {"name": "Ada", "heartbeat": {"every": "20m", "target": None}}
    assert list(roster_changes(patch)) == [
        'name = "Ada"',
        'heartbeat.every = "20m"',
        "heartbeat.target removed",
    ]


def test_a_diff_keeps_its_text_and_steers_no_terminal() -> None:
    diff = coloured("--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\x1b[2J")
    assert diff.plain.splitlines()[-2:] == ["-old", "+new\ufffd[2J"]
    assert {str(span.style) for span in diff.spans} >= {"dim", "cyan", "red", "green"}
