"""A sync as it goes on, on a terminal and elsewhere, from figures made by hand."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from tests.unit.cli.views.test_jobs import JOB, shown
from worker.cli.job_summary import JobSummary, Named, Tally
from worker.cli.views.live import LineView, live_view
from worker.cli.views.progress import NO_WORKER, doing

TALLY = Tally(
    total=60,
    done=34,
    unchanged=30,
    changed=3,
    failed=1,
    in_hand=14,
    main="pending",
    at_work=[Named(UUID(int=n), f"Agent {n}", "running", "files") for n in range(3)],
    failures=[Named(UUID(int=50), "Agent 50", "failed", "F" * 200)],
)
RUN = replace(
    JOB, kind="sync_gateway", phase="agents", agent_id=None, age_s=9.0, took_s=8.0, agents=(), tally=TALLY
)


def changed(job: JobSummary, **columns: Any) -> JobSummary:
    """The sync with other columns, or other figures of its tally."""
    figures = {name: columns.pop(name) for name in list(columns) if hasattr(TALLY, name)}
    return replace(job, **columns, tally=replace(job.tally, **figures))


def lines_of(run: JobSummary) -> list[str]:
    return [line.rstrip() for line in shown(live_view([run], Console(width=80)))]


def test_a_terminal_shows_a_bar_the_counts_who_is_at_work_and_what_failed() -> None:
    bar, counts, work, failure = lines_of(RUN)
    assert re.match(r"  my gateway +\S+ +34 of 60 +8\.0 s$", bar)
    assert counts == "  30 need nothing, 3 changed, 1 failed"
    assert work == "  at work: Agent 0 (files), Agent 1 (files), Agent 2 (files) and 11 more"
    assert re.match(r"  \S Agent 50 failed: F+\u2026$", failure)


@pytest.mark.parametrize("long", ["N" * 300, "a\nb" * 100], ids=["long", "lines"])
def test_it_keeps_to_80_columns_and_its_lines_whatever_the_names(long: str) -> None:
    named = [Named(UUID(int=n), long, "failed", long) for n in range(3)]
    lines = lines_of(changed(RUN, gateway_name=long, at_work=named, failures=named))
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80


def test_at_its_end_only_the_bar_and_the_counts_stay() -> None:
    assert len(lines_of(changed(RUN, status="partial", done=60))) == 2
    nobody = changed(RUN, status="succeeded", total=0, done=0, unchanged=0, changed=0, failed=0)
    assert lines_of(nobody)[1] == "  no agent to sync"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "queued", "phase": None}, "waiting for a worker"),
        ({"status": "queued", "phase": "waiting"}, "waits for another sync of this gateway"),
        ({"phase": "look"}, "looking at the gateway"),
        ({"phase": "compare"}, "comparing its agents with what is on record of them"),
        ({"phase": "look", "wait_reason": "Gateway 'g' is down."}, "Gateway 'g' is down."),
        ({"phase": "roster"}, "waiting for the roster writer"),
        (
            {"at_work": [], "in_hand": 0, "waiting": 20, "waits_for": "gateway 'g' is down"},
            "20 wait: gateway 'g' is down",
        ),
        ({"at_work": [], "in_hand": 0, "done": 60}, "the main agent"),
    ],
)
def test_it_says_what_it_does_or_waits_for(change: dict[str, Any], words: str) -> None:
    assert doing(changed(RUN, **change)) == words


def test_a_run_that_no_worker_takes_and_one_that_is_being_cancelled_say_so() -> None:
    queued = changed(RUN, status="queued", phase=None, failures=[])
    assert " ".join(" ".join(lines_of(queued)).split()).endswith(NO_WORKER)
    assert "to be cancelled; at work" in " ".join(lines_of(changed(RUN, cancel_requested_at=JOB.created_at)))


def told(*runs: JobSummary) -> list[str]:
    screen = io.StringIO()
    view = LineView(Console(file=screen, width=80))
    for run in runs:
        view.show([run])
    return [line.split("  ", 1)[1] for line in screen.getvalue().splitlines()]


def test_without_a_terminal_a_line_comes_when_a_tenth_more_is_done() -> None:
    quiet = changed(RUN, failures=[], failed=0, total=100)
    said = told(*(changed(quiet, done=n, unchanged=n, changed=0) for n in range(101)))
    assert said[0] == "my gateway: 14 at work"
    assert said[1] == "my gateway: 1 of 100 agents: 1 needs nothing"
    assert said[2:] == [f"my gateway: {n} of 100 agents: {n} need nothing" for n in range(10, 101, 10)]


def test_and_one_for_each_failure_once_and_for_many_of_one_kind_one() -> None:
    away = [Named(UUID(int=n), f"Agent {n}", "skipped", "No token.") for n in range(40)]
    said = told(RUN, RUN, changed(RUN, failures=[*TALLY.failures, *away]))
    assert [line for line in said if " failed: " in line] == [f"my gateway: Agent 50 failed: {'F' * 200}"]
    assert [line for line in said if " skipped: " in line] == [
        "my gateway: Agent 39, Agent 38, Agent 37 and 37 more skipped: No token."
    ]
