"""How the last run ended, as sessions.list of 2026.8 and later tells it (gateways.md 3)."""

from __future__ import annotations

from typing import Any

import pytest

from worker.gateway.answers import Answer
from worker.gateway.runs import LastRun, listed_run

NOW_MS = 1_795_854_556_207


def listed(**entry: Any) -> LastRun | None:
    times = {"startedAt": NOW_MS - 2_000, "endedAt": NOW_MS - 1_000, "abortedLastRun": False}
    return listed_run(Answer({**times, **entry}, "workshop", "sessions.list"), NOW_MS)


@pytest.mark.parametrize("status", ["queued", "running", "interrupted", None])
def test_the_run_before_one_that_waits_or_goes_on_is_not_judged(status: str | None) -> None:
    assert listed(status=status, hasActiveRun=True) is None


def test_a_run_that_has_ended_is_judged() -> None:
    assert listed(status="done") == LastRun("well", 2.0)
    assert listed(status="failed", lastRunError="No model.") == LastRun("badly", 2.0, "No model.")
    assert listed(status="timeout") == LastRun("badly", 2.0)
    assert listed(status="done", abortedLastRun=True) == LastRun("badly", 2.0)
    assert listed(status="done", startedAt=None) is None
