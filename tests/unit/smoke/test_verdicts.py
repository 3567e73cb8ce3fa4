"""What `make smoke` tries again, what it fails for, and what it says last (tests/smoke/verdicts.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.smoke.verdicts import (
    EnvironmentFailed,
    Gateway,
    Limits,
    Report,
    Scene,
    Verdict,
    WrongResult,
    exit_code,
    try_releases,
)

LIMITS = Limits(total_s=500, start_s=90, scene_s=120, quick_start_s=20)


class Clock:
    """Time passes only when a part of a try takes some."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Try:
    """How one try goes. ``start`` and ``npm``: what they raise; each part takes so many seconds."""

    scene: Scene = Scene.PASSED
    ends: bool = False
    hangs: bool = False
    start: Exception | None = None
    npm: Exception | None = None
    npm_s: float = 1
    start_s: float = 10
    scene_s: float = 20


@dataclass
class FakeGateway:
    how: Try
    clock: Clock
    limits: list[float]

    @property
    def running(self) -> bool:
        return not self.how.ends

    def lets_us_in(self) -> bool:
        return not (self.how.hangs or self.how.ends)

    def run_scene(self, limit_s: float) -> Scene:
        self.limits.append(limit_s)
        self.clock.now += min(self.how.scene_s, limit_s)
        return self.how.scene


@dataclass
class FakeRelease:
    name: str
    clock: Clock
    tries: list[Try]
    began: int = 0
    stopped: int = 0
    limits: list[float] = field(default_factory=list)

    def install(self, limit_s: float) -> None:
        how = self.tries[self.began]
        self.began += 1
        self.clock.now += min(how.npm_s, limit_s)
        if how.npm:
            raise how.npm

    @contextmanager
    def gateway(self, limit_s: float) -> Iterator[Gateway]:
        how = self.tries[self.began - 1]
        self.clock.now += min(how.start_s, limit_s)
        if how.start:
            raise how.start
        try:
            yield FakeGateway(how, self.clock, self.limits)
        finally:
            self.stopped += 1


@dataclass
class Run:
    """``old`` and ``new`` tried, with what was said."""

    old: FakeRelease
    new: FakeRelease
    reports: list[Report]
    said: list[str]
    took_s: float

    @property
    def verdicts(self) -> list[Verdict]:
        return [report.verdict for report in self.reports]

    @property
    def code(self) -> int:
        return exit_code(self.reports)


def run(old: list[Try], new: list[Try]) -> Run:
    clock, said = Clock(), list[str]()
    began = clock.now
    first, second = FakeRelease("old", clock, old), FakeRelease("new", clock, new)
    reports = try_releases([first, second], LIMITS, said.append, clock)
    return Run(first, second, reports, said, clock.now - began)


GOOD = Try()
DIED = Try(scene=Scene.UNFINISHED, ends=True)
NEVER_UP = Try(start=EnvironmentFailed("was not ready"), start_s=1000)
WRONG = Try(scene=Scene.WRONG)
ENVIRONMENT_FAILURES = {
    "does not come up": NEVER_UP,
    "dies of itself": DIED,
    "no longer lets us in": Try(scene=Scene.UNFINISHED, hangs=True),
    "is refused by npm": Try(npm=EnvironmentFailed("npm did not install it")),
}


def test_where_all_goes_well_each_release_is_tried_once() -> None:
    done = run([GOOD], [GOOD])
    assert (done.verdicts, done.code) == ([Verdict.PASSED] * 2, 0)
    assert (done.old.began, done.new.began) == (1, 1)
    assert not any("NOT RUN" in line for line in done.said)


@pytest.mark.parametrize("failure", ENVIRONMENT_FAILURES.values(), ids=ENVIRONMENT_FAILURES)
def test_weather_is_tried_again_once(failure: Try) -> None:
    done = run([failure, GOOD], [GOOD])
    assert (done.verdicts, done.code) == ([Verdict.PASSED] * 2, 0)
    assert done.old.began == 2


@pytest.mark.parametrize("failure", ENVIRONMENT_FAILURES.values(), ids=ENVIRONMENT_FAILURES)
def test_the_second_time_the_release_is_not_run_which_is_said_last(failure: Try) -> None:
    for done in (run([failure] * 3, [GOOD]), run([GOOD], [failure] * 3)):
        [missing] = [report for report in done.reports if report.verdict is Verdict.NOT_RUN]
        assert done.code == 0
        assert done.old.began + done.new.began == 3
        assert done.said[-1].startswith(f"NOT RUN: OpenClaw {missing.release}: ")


def test_where_no_release_ran_whole_it_fails() -> None:
    done = run([NEVER_UP] * 3, [DIED] * 3)
    assert (done.verdicts, done.code) == ([Verdict.NOT_RUN] * 2, 1)
    assert [line.split(":")[0] for line in done.said[-2:]] == ["NOT RUN", "NOT RUN"]


@pytest.mark.parametrize(
    "wrong",
    [
        WRONG,
        Try(scene=Scene.WRONG, ends=True),
        Try(scene=Scene.WRONG, hangs=True),
        Try(scene=Scene.UNFINISHED),
        Try(scene=Scene.UNFINISHED, scene_s=1000),
        Try(start=WrongResult("it refuses our connect")),
        Try(npm=WrongResult("the install ended with code 1")),
    ],
    ids=["compared", "then died", "then hung", "job failed", "too slow", "refused", "our install"],
)
def test_a_wrong_result_is_never_tried_again(wrong: Try) -> None:
    for done in (run([wrong, GOOD], [GOOD]), run([GOOD], [wrong, GOOD]), run([wrong, GOOD], [DIED] * 2)):
        assert Verdict.FAILED in done.verdicts
        assert done.code == 1
        for release in (done.old, done.new):
            assert release.began == (2 if DIED in release.tries else 1)


def test_a_wrong_result_after_weather_fails() -> None:
    done = run([DIED, WRONG], [GOOD])
    assert (done.verdicts, done.code) == ([Verdict.FAILED, Verdict.PASSED], 1)


def test_every_gateway_that_came_up_is_stopped() -> None:
    done = run([DIED, WRONG], [NEVER_UP, GOOD])
    assert (done.old.stopped, done.new.stopped) == (2, 1)


def test_however_slow_all_is_it_ends_in_time_and_no_scene_is_cut_short() -> None:
    slow = Try(scene=Scene.UNFINISHED, ends=True, npm_s=300, start_s=90, scene_s=120)
    for old in ([slow] * 2, [NEVER_UP] * 2, [GOOD]):
        done = run(old, [slow] * 2)
        assert done.took_s <= LIMITS.total_s
        assert {*done.old.limits, *done.new.limits} <= {LIMITS.scene_s}
        assert done.new.began >= 1


def test_a_release_that_npm_keeps_us_waiting_for_leaves_the_other_its_time() -> None:
    done = run([Try(npm=EnvironmentFailed("npm took too long"), npm_s=1000)] * 2, [GOOD])
    assert (done.verdicts, done.code) == ([Verdict.NOT_RUN, Verdict.PASSED], 0)
    assert "no time was left" in done.said[-1]
