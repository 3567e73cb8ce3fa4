"""A sync on a page, as an operator reads it, from records made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.views.sync_samples import MAIN, agent, sync_job, written
from worker.cli.job_summary import JobSummary
from worker.cli.views.sync_agents import MOST_LINES
from worker.cli.views.syncs import show_sync, steps_of_sync, summary
from worker.jobs.states import ReasonCode


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lines of a job's page at 80 columns, each squeezed."""
    monkeypatch.setenv("COLUMNS", "80")

    def of(job: JobSummary) -> list[str]:
        show_sync(job)
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines[1:] if len(line) > 80] == []  # the first is never wrapped: console.say
        return [" ".join(line.split()) for line in lines if line.strip()]

    return of


def test_a_large_fleet_that_needed_nothing_is_a_few_lines(page: Any) -> None:
    lines = page(sync_job(*(agent(n) for n in range(200)), MAIN))
    assert len(lines) < 10
    assert "agents 200 of 200 updated (200 needed nothing)" in lines
    assert "main agent needs nothing" in lines
    assert any(line.startswith("files 0 written, 201 as they should be") for line in lines)


def test_the_summary_leaves_out_what_there_is_none_of() -> None:
    tally = sync_job(
        agent(1),
        agent(2, files=written("SOUL.md")),
        agent(3, "failed", phase="files", reason="No."),
        agent(4, "skipped", phase="files", reason="No token."),
        agent(5, "skipped", outcome="paused", reason="Paused."),
        agent(6, "not_attempted", reason="The gateway is away."),
        MAIN,
    ).tally
    rest = "1 failed, 1 skipped, 1 paused, 1 not attempted"
    assert summary(tally) == f"2 of 6 updated (1 needed nothing), {rest}"
    assert summary(tally, planned=True) == f"1 of 6 would change, 1 needs nothing, {rest}"


def test_only_those_changed_or_not_well_are_listed_and_the_worst_come_first(page: Any) -> None:
    changes = {"heartbeat": {"every": "25m"}}
    lines = page(
        sync_job(
            agent(1),
            agent(2, files=written("SOUL.md", "AGENTS.md")),
            agent(3, roster={"action": "update", "changes": changes}),
            agent(4, "failed", board_name="Research", reason="The SOUL.md override cannot be used."),
            agent(5, "skipped", outcome="paused", reason="Its board 'Launch' is paused."),
            MAIN,
        )
    )
    listed = lines[lines.index("Agent Board Status What") + 1 :]
    assert listed == [
        "Agent 004 Research failed The SOUL.md override cannot be used.",
        "Agent 005 Launch paused Its board 'Launch' is paused.",
        "Agent 002 Launch updated AGENTS.md, SOUL.md",
        'Agent 003 Launch updated heartbeat.every = "25m"',
    ]


def test_what_many_share_is_one_line(page: Any) -> None:
    changed = [agent(n, files=written("SOUL.md")) for n in range(150)]
    away = [agent(n, "not_attempted", reason="Unreachable for 10 minutes.") for n in range(150, 200)]
    lines = page(sync_job(*changed, *away, MAIN))
    assert lines[-2:] == [
        "50 agents not attempted Unreachable for 10 minutes.",
        "150 agents updated SOUL.md",
    ]


def test_a_table_has_an_end(page: Any) -> None:
    lines = page(sync_job(*(agent(n, "failed", reason=f"Fault {n}.") for n in range(500)), MAIN))
    assert lines[-1] == f"and {500 - MOST_LINES} more"


def test_a_plan_with_nothing_to_do_is_one_line(page: Any) -> None:
    job = sync_job(*(agent(n) for n in range(3)), MAIN, options={"dry_run": True})
    assert page(job) == [
        "my gateway: nothing to do: 3 agents and the main agent as their templates want them."
    ]


def test_a_plan_says_who_would_change_why_and_how_to_do_it(page: Any) -> None:
    files = {
        **written("SOUL.md"),
        "USER.md": {"action": "update", "changed_by": "both"},
        "NEW.md": {"action": "create"},
    }
    lines = page(
        sync_job(agent(1), agent(2, files=files), MAIN, options={"dry_run": True, "overwrite": True})
    )
    assert "plan for a sync of my gateway succeeded nothing was written" in lines
    assert "agents 1 of 2 would change, 1 needs nothing" in lines
    assert 'do it provisioner sync "my gateway" --overwrite' in lines
    text = " ".join(lines)
    assert "NEW.md (not there); SOUL.md (templates or facts); USER.md (both sides)" in text.replace(
        " would change ", " "
    )


def test_diffs_are_shown_under_their_agent(page: Any) -> None:
    files = written("SOUL.md")
    files["SOUL.md"]["diff"] = "--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new"
    lines = page(sync_job(agent(1, files=files), MAIN, options={"dry_run": True}))
    assert lines[lines.index("Agent 001: SOUL.md") + 1 :][-2:] == ["-old", "+new"]


def test_each_fault_has_its_way_out_and_the_last_is_retry() -> None:
    job = sync_job(
        agent(1, "skipped", phase="files", reason_code=ReasonCode.NO_TOKEN, first_provision=False),
        agent(2, "skipped", phase="looked", reason_code=ReasonCode.NOT_REGISTERED, first_provision=True),
        agent(3, "not_attempted", reason="The gateway is away."),
    )
    assert list(steps_of_sync(job)) == [
        'provisioner main "my gateway"',
        'provisioner doctor "my gateway"',
        'provisioner update "Agent 001" --rotate-tokens --no-wake',
        'provisioner provision "Agent 002"',
        "then: provisioner retry 00000000",
    ]
    assert list(steps_of_sync(sync_job(agent(1), MAIN))) == []
