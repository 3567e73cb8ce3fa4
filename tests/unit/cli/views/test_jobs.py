"""What an operator reads of a job, from records made by hand."""

from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from worker.cli.console import argument
from worker.cli.job_summary import AgentSummary, JobSummary, RollOutSummary, document
from worker.cli.views.jobs import counts_of, list_of_jobs, next_steps, show_job, subject
from worker.cli.views.live import PHASES, live_table
from worker.cli.views.progress import progress
from worker.jobs.states import ReasonCode

AGENT = UUID("11111111-2222-3333-4444-555555555555")

ROW = AgentSummary(
    agent_id=AGENT,
    name="Ada",
    is_board_lead=True,
    openclaw_id="lead-1",
    status="running",
    phase="files",
    reason=None,
    warnings=[],
    tries=0,
    crashes=0,
    in_hand=True,
    due_in_s=None,
    first_provision=True,
    woken=False,
    files={},
    took_s=1.0,
)
JOB = JobSummary(
    id=UUID(int=7),
    kind="provision_agent",
    status="running",
    phase=None,
    request_id=None,
    requested_by="cli",
    agent_id=AGENT,
    agent_name="Ada",
    board_id=None,
    board_name="Launch",
    gateway_id=None,
    gateway_name="my gateway",
    parent_job_id=None,
    options={},
    result=None,
    warnings=[],
    error=None,
    agents_total=1,
    agents_done=0,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    started_at=None,
    finished_at=None,
    age_s=2.0,
    waited_s=0.5,
    took_s=1.5,
    agents=(ROW,),
)


def shown(thing: Any, width: int = 80) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width, markup=False).print(thing)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "files"),
        ({"in_hand": False, "due_in_s": 0.4, "reason": None}, "waiting for a worker"),
        (
            {"in_hand": False, "due_in_s": 12.0, "reason": "gateway 'g' is down"},
            "gateway 'g' is down, again in 12.0 s",
        ),
        (
            {
                "in_hand": False,
                "due_in_s": 58.0,
                "phase": "roster",
                "reason": "waiting for the roster writer",
            },
            "waiting for the roster writer",
        ),
    ],
)
def test_progress_says_the_phase_or_what_the_row_waits_for(row: dict[str, Any], words: str) -> None:
    assert progress(replace(JOB, agents=(replace(ROW, **row),))) == words


def test_a_job_that_no_worker_took_says_so() -> None:
    assert progress(replace(JOB, status="queued", agents=())) == "waiting for a worker"


def test_a_success_is_summed_up_by_what_was_done() -> None:
    files = {"A.md": {"action": "create"}, "B.md": {"action": "update"}, "C.md": {"action": "unchanged"}}
    done = replace(
        JOB, status="succeeded", result={"woken": True}, warnings=["w"], agents=(replace(ROW, files=files),)
    )
    assert progress(done) == "2 files written, woken, 1 warning"


@pytest.mark.parametrize(
    ("removed", "warnings", "says"),
    [
        (True, [], "removed from its gateway"),
        (True, ["its folder was left"], "removed from the roster of its gateway, but see the warnings"),
        (False, [], "it was not on its gateway"),
        (False, ["it is another's"], "removed nothing from its gateway: see the warnings"),
    ],
)
def test_a_delete_that_left_something_does_not_say_that_all_is_gone(
    removed: bool, warnings: list[str], says: str
) -> None:
    ended = replace(JOB, status="succeeded", result={"removed": removed}, warnings=warnings)
    assert progress(ended).startswith(says)
    assert ("but see" in progress(ended)) is ("but see" in says)


def test_the_bar_grows_with_the_phases() -> None:
    bars = [
        shown(live_table([replace(JOB, agents=(replace(ROW, phase=phase),))], Console()))[0].count("\u25cf")
        for phase in PHASES
    ]
    assert bars == sorted(set(bars))


def test_a_live_table_keeps_to_80_columns_however_long_names_and_errors_are() -> None:
    job = replace(JOB, agent_name="N" * 200, status="failed", error="E" * 500)
    long, usual = shown(live_table([job, replace(JOB, error="E" * 500)], Console()))
    assert max(len(long), len(usual)) <= 80
    assert re.match(r"  \u2717  N{27}\u2026  \u25cf{3}\u00b7{2}    1.5 s  E+\u2026$", long)
    assert re.match(r"  \u25cf  Ada \(lead\)  +\u25cf{3}\u00b7{2}    1.5 s  files", usual)


def test_brackets_in_names_and_errors_are_no_markup() -> None:
    lines = shown(list_of_jobs([replace(JOB, agent_name="[bold]A", error="[red]no")]))
    assert "[bold]A" in lines[1]
    assert "[red]no" in lines[1]


def test_at_80_columns_a_list_of_jobs_keeps_ids_verbs_and_states() -> None:
    kinds = ("provision_gateway_main", "ensure_board_lead", "sync_gateway", "of_a_later_version")
    jobs = [
        replace(JOB, kind=kind, agent_name="N" * 99, status="succeeded", error="E" * 99, age_s=600.0)
        for kind in kinds
    ]
    _, *rows = shown(list_of_jobs(jobs))
    assert all("EEEE" in row for row in rows)
    assert [row.split()[1] for row in rows] == ["main", "lead", "sync", "of_a_later_version"]
    assert all(row.startswith("00000000  ") and "  succeeded  10 min ago  1.5 s" in row for row in rows)
    assert all(len(row) <= 80 for row in rows)


def test_a_job_about_many_is_not_called_a_lead_and_its_page_says_next_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = replace(JOB, kind="sync_heartbeats", agent_id=None, agent_name=None)
    assert "(lead)" not in shown(live_table([many], Console()))[0]
    show_job(replace(JOB, status="failed", error="No.", reason_code=ReasonCode.GATEWAY_REFUSED))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["next", "then:"]


def test_a_failure_at_the_gateway_points_to_doctor_and_then_to_the_command_again() -> None:
    failed = replace(
        JOB, status="failed", error="Not accepted: our token", reason_code=ReasonCode.GATEWAY_REFUSED
    )
    assert list(next_steps(failed)) == ['provisioner doctor "my gateway"', "then: provisioner provision Ada"]


@pytest.mark.parametrize("status", ["queued", "running", "succeeded", "cancelled"])
def test_what_did_not_fail_asks_for_nothing(status: str) -> None:
    assert list(next_steps(replace(JOB, status=status))) == []


@pytest.mark.parametrize(
    ("job", "facts"),
    [
        (JOB, []),
        (replace(JOB, tries=4), [("tries", "4 failed and were repeated")]),
        (replace(JOB, crashes=1), [("crashes", "1 of the workers that had it died")]),
        (
            replace(JOB, kind="sync_gateway", agent_id=None, tries=4),
            [("tries", "4 failed and were repeated, the most for one agent")],
        ),
    ],
)
def test_a_page_counts_failed_tries_apart_from_crashes(job: JobSummary, facts: list[tuple[str, str]]) -> None:
    assert list(counts_of(job)) == facts


def test_the_json_of_a_job_keeps_its_keys() -> None:
    whole = document(replace(JOB, crashes=2, agents=(replace(ROW, tries=4, crashes=2),)))
    assert (whole["attempts"], whole["agents"][0]["attempts"]) == (2, 2)
    assert {"id", "kind", "status", "error", "result", "warnings", "options", "request_id"} <= set(whole)
    assert {"agent_id", "status", "phase", "files", "woken"} <= set(whole["agents"][0])
    assert "agents" not in document(JOB, with_agents=False)


@pytest.mark.parametrize(
    "name", ["Ann", "Ann 0", "D'Arcy & Co.", 'x"; rm -rf ~; "', "$(id)", "`id`", "a\\b", "!!", "", "über-1"]
)
def test_a_command_can_be_pasted_whatever_the_name_is(name: str) -> None:
    assert shlex.split(f"provisioner update {argument(name)}") == ["provisioner", "update", name]
    assert not set("$`\\!") & set(argument(name)) or argument(name).startswith("'")


def test_a_roll_out_over_two_gateways_is_named_by_both() -> None:
    further = {"gateways": [str(UUID(int=9))]}
    of_none = replace(JOB, kind="roll_out", agent_id=None, agent_name=None, agents=(), board_name=None)
    queued = replace(of_none, gateway_name="west", options=further)
    begun = replace(queued, rollout=RollOutSummary(["west", "east"], 1, 3, False, None, {}, ()))
    assert [subject(job) for job in (queued, begun)] == ["west and 1 more", "west and east"]
    assert subject(replace(begun, options={})) == "west"
