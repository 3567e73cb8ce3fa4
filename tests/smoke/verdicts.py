"""Tells failures of the environment from wrong results, and decides what is tried again.

A failure of the environment is a process's state and never a sentence: npm ended without the release, the
gateway's process ended or never let us connect. A wrong result counts, whatever the gateway did since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

TRIES = 2


class EnvironmentFailed(Exception):
    """The release could not show what we do with it; the message says why."""


class WrongResult(Exception):
    """What we did with the release was wrong."""


class Scene(Enum):
    """How the scene ended. ``UNFINISHED``: something that it waited for did not come, or failed, so that it
    had nothing to compare; that is the gateway's doing only if the gateway is gone."""

    PASSED = "passed"
    UNFINISHED = "unfinished"
    WRONG = "wrong"


class Gateway(Protocol):
    """A gateway that came up."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""

    def lets_us_in(self) -> bool:
        """Whether it answers a ``connect``, now or soon."""

    def run_scene(self, limit_s: float) -> Scene:
        """The scene on it."""


class Candidate(Protocol):
    """A release to be tried. What it cannot do in time, or at all, it raises as ``EnvironmentFailed``."""

    @property
    def name(self) -> str: ...

    def install(self, limit_s: float) -> None: ...

    def gateway(self, limit_s: float) -> AbstractContextManager[Gateway]:
        """A new gateway on a new state folder. Raises ``WrongResult`` if it is up and refuses our connect."""


@dataclass(frozen=True)
class Limits:
    """In seconds. A try that could not end in time is not begun, so that no scene is cut short for want of
    time: ``total_s`` is the most that all releases take together."""

    total_s: float = 500.0
    start_s: float = 90.0
    scene_s: float = 120.0
    quick_start_s: float = 20.0
    quick_install_s: float = 5.0

    @property
    def after_install_s(self) -> float:
        """The least that a start and the scene need."""
        return self.quick_start_s + self.scene_s

    @property
    def try_s(self) -> float:
        """The least that must be left for a try."""
        return self.quick_install_s + self.after_install_s


class Verdict(Enum):
    PASSED = "passed"
    FAILED = "FAILED"
    NOT_RUN = "NOT RUN"


@dataclass(frozen=True)
class Report:
    release: str
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        if self.verdict is Verdict.NOT_RUN:
            return f"NOT RUN: OpenClaw {self.release}: {self.reason}"
        return f"----- OpenClaw {self.release}: {self.verdict.value}{self.reason and ': ' + self.reason}"


def exit_code(reports: Sequence[Report]) -> int:
    """0 where no result was wrong and at least one release ran whole."""
    verdicts = [report.verdict for report in reports]
    return 0 if Verdict.PASSED in verdicts and Verdict.FAILED not in verdicts else 1


def try_releases(
    candidates: Sequence[Candidate],
    limits: Limits,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Report]:
    """One report for each candidate, in their order; the last ones of ``say`` are those that did not run."""
    until = clock() + limits.total_s
    reports: list[Report] = []
    for candidate in candidates:
        to_come = len(candidates) - len(reports) - 1
        reports.append(_try(candidate, limits, until - to_come * limits.try_s, say, clock))
    for report in sorted(reports, key=lambda report: report.verdict is Verdict.NOT_RUN):
        say(str(report))
    return reports


def _try(
    candidate: Candidate, limits: Limits, until: float, say: Callable[[str], None], clock: Callable[[], float]
) -> Report:
    reason = ""
    for number in range(1, TRIES + 1):
        if until - clock() < limits.try_s:
            return Report(candidate.name, Verdict.NOT_RUN, f"{reason}; no time was left for another try")
        try:
            _try_once(candidate, limits, until, clock)
        except EnvironmentFailed as failure:
            reason = str(failure).partition("\n")[0]
            say(f"----- OpenClaw {candidate.name}, try {number} of {TRIES}: {failure}")
        except WrongResult as wrong:
            return Report(candidate.name, Verdict.FAILED, str(wrong))
        else:
            return Report(candidate.name, Verdict.PASSED)
    return Report(candidate.name, Verdict.NOT_RUN, reason)


def _try_once(candidate: Candidate, limits: Limits, until: float, clock: Callable[[], float]) -> None:
    candidate.install(until - limits.after_install_s - clock())
    with candidate.gateway(min(limits.start_s, until - limits.scene_s - clock())) as gateway:
        scene = gateway.run_scene(limits.scene_s)
        if scene is Scene.PASSED:
            return
        if scene is Scene.UNFINISHED:
            if not gateway.running:
                raise EnvironmentFailed("its process ended by itself")
            if not gateway.lets_us_in():
                raise EnvironmentFailed("it no longer lets us connect")
        raise WrongResult("see above")
