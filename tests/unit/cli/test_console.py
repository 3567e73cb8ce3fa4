from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from worker.cli.console import ago, cut_cell, marks, plain, say, size, table, took


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0, "0.00 s"),
        (0.84, "0.84 s"),
        (12.34, "12.3 s"),
        (59.0, "59.0 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_lengths_of_time_read_as_people_say_them(seconds: float | None, words: str) -> None:
    assert took(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.4, "just now"),
        (40, "40 s ago"),
        (300, "5 min ago"),
        (10_800, "3 h ago"),
        (1_036_800, "12 days ago"),
    ],
)
def test_moments_read_as_people_say_them(seconds: float | None, words: str) -> None:
    assert ago(seconds) == words


@pytest.mark.parametrize(
    ("octets", "words"), [(0, "0 B"), (812, "812 B"), (4096, "4.1 kB"), (3_000_000, "3.0 MB")]
)
def test_sizes_have_a_unit(octets: int, words: str) -> None:
    assert size(octets) == words


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert plain("Ada\x1b[2J\r\u202eB\nC") == "Ada\ufffd[2J\ufffd\ufffdB\nC"


def test_a_terminal_without_unicode_gets_ascii_marks() -> None:
    narrow = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert all(mark.isascii() for mark in vars(marks(narrow)).values())


def test_a_table_is_cut_in_its_last_column_only() -> None:
    console = Console(file=io.StringIO(), width=40)
    shown = table("Job", "Status", last="Error")
    shown.add_row("4f0c0c3e", "failed", "a sentence that goes on for longer than there is room")
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    row = console.file.getvalue().splitlines()[1]
    assert row.startswith("4f0c0c3e  failed  a sentence")
    assert row.rstrip().endswith("\u2026")
    assert len(row) <= 40


def test_a_column_that_folds_loses_nothing_and_one_that_yields_is_cut_first() -> None:
    console = Console(file=io.StringIO(), width=40)
    shown = table("Id", "Agent", "Status", last="Newest job", folds=True, yields="Agent")
    shown.add_row("4f0c", cut_cell("simulator Gateway Agent"), "offline", "succeeded 22 s ago")
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= 40
    assert re.match(r"4f0c  simulator\u2026  offline  succeeded 22$", lines[-2]), lines
    assert lines[-1].strip() == "s ago"


def test_a_diff_is_not_wrapped_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=20, force_terminal=True)
    say("+" + "word " * 10, console=console)
    say("+" + "word " * 10, console=console, verbatim=True)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[-1].startswith("+" + "word " * 9)
