"""All interleavings of two workers and their dispatchers, the jobs of one agent, a broker, the roster writer,
a user who cancels and a sync window: what decisions.md D5, decisions.md D6 and decisions.md D8 promise of a
job's life holds in every one, and no longer once a precaution is left out.

Exhaustive for these sizes, and for no others. ``--whole-model`` explores the larger sizes too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model.explorer import Explored, explore
from tests.model.job_life import (
    CANCEL_SLEPT,
    CUT_SHORT,
    ENDED_TWICE,
    ENDED_UNDER,
    HELD_WHILE_WAITING,
    LATE,
    LOST,
    NOT_TOLD,
    SLEPT_THROUGH,
    TAKEN,
    TAKEN_OVER,
    TWO_HOLDERS,
    WINDOW_SLEPT,
    Life,
    all_ended,
)
from tests.model.job_world import NO_MISHAPS, Job, Mishaps, Rules, World

ALL = Rules()
ANY_TWO = Mishaps()
ANY_ONE = Mishaps(any=1)
NONE = NO_MISHAPS._replace(cancels=1)
PLAIN, ROSTER, WINDOW = Job(), Job(roster=True), Job(window=True)
WAKES = Job(wakes=True, retries=True)
STUCK = "a job never ends, and holds its agent for ever"
READ_EARLIER = (CANCEL_SLEPT, LATE)


def explored(
    rules: Rules, jobs: tuple[Job, ...], mishaps: Mishaps, *, known: tuple[str, ...] = (), first: bool = False
) -> Explored[World]:
    life = Life(rules, jobs, mishaps)
    return explore(life.start(), life.steps, known=known, first_only=first)


def require_unbroken(found: Explored[World]) -> None:
    """Raise an AssertionError that shows a shortest way to each fault, and to where nothing ends any more."""
    faults = dict(found.broken)
    stuck = found.stuck(all_ended) if not faults else None
    if stuck is not None:
        faults[STUCK] = stuck
    assert not faults, "\n".join("\n  ".join([f"{fault}:", *way]) for fault, way in faults.items())


@pytest.fixture
def whole_model(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--whole-model"))


CHECKED: dict[str, tuple[tuple[Job, ...], Mishaps, bool]] = {
    "a job, any two mishaps": ((PLAIN,), ANY_TWO, False),
    "one that waits for the roster, any two mishaps": ((ROSTER,), ANY_TWO, False),
    "one that wakes, any two mishaps": ((WAKES,), ANY_TWO, False),
    "one that waits for a window, any two mishaps": ((WINDOW,), ANY_TWO, False),
    "two in line, any mishap": ((PLAIN, PLAIN), ANY_ONE, False),
    "three in line": ((PLAIN, PLAIN, PLAIN), NONE, False),
    "two that wait for a window": ((WINDOW, WINDOW), NONE, False),
    "one that waits for the roster and one in line, any mishap": ((ROSTER, PLAIN), ANY_ONE, False),
    "one that waits for a window and one in line, any mishap": ((WINDOW, PLAIN), ANY_ONE, True),
    "one that wakes and one in line, any mishap": ((WAKES, PLAIN), ANY_ONE, True),
    "two in line, any two mishaps": ((PLAIN, PLAIN), ANY_TWO, True),
    "all of it, and one in line": ((Job(True, True, True, True), PLAIN), NONE, False),
    "all of it, any mishap": ((Job(True, True, True, True), PLAIN), ANY_ONE, True),
}


@pytest.mark.parametrize(("jobs", "mishaps", "large"), CHECKED.values(), ids=CHECKED)
def test_nothing_is_lost_and_everything_ends(
    jobs: tuple[Job, ...], mishaps: Mishaps, large: bool, whole_model: bool
) -> None:
    if large and not whole_model:
        pytest.skip("large: --whole-model explores it")
    found = explored(ALL, jobs, mishaps)
    require_unbroken(found)
    print(f"{len(found.came)} states")


PAUSED = NO_MISHAPS._replace(pauses=1, any=1)
REFUSED = NO_MISHAPS._replace(refusals=1, any=1)
LOSES = NO_MISHAPS._replace(losses=1, any=1)
DIES = NO_MISHAPS._replace(crashes=1, any=1)
DIES_THEN_CANCEL = DIES._replace(cancels=1)
DOUBLED = NO_MISHAPS._replace(doubles=1, any=1)
QUIET = NO_MISHAPS


def without(precautions: str) -> Rules:
    """The rules with these precautions, by their names, left out."""
    return replace(ALL, **dict.fromkeys(precautions.split(), False))


WITHOUT: list[tuple[str, tuple[Job, ...], Mishaps, str]] = [
    ("generation", (PLAIN,), PAUSED, TAKEN_OVER),
    ("generation", (WINDOW,), PAUSED, TAKEN_OVER),
    ("claim_compares_lease", (PLAIN,), DOUBLED, TAKEN),
    ("one_running_row", (PLAIN, PLAIN), QUIET, TWO_HOLDERS),
    ("marks_expire", (PLAIN,), LOSES, STUCK),
    ("marks_expire", (PLAIN,), DIES, STUCK),
    ("rescues", (PLAIN,), DIES, STUCK),
    ("unmarks", (PLAIN,), REFUSED, LOST),
    ("next_in_line", (PLAIN, PLAIN), QUIET, LATE),
    ("next_in_line", (WINDOW, PLAIN), QUIET, LATE),
    ("set_back_frees", (WINDOW, PLAIN), QUIET, HELD_WHILE_WAITING),
    ("windows_make_due", (WINDOW,), QUIET, WINDOW_SLEPT),
    ("cancel_makes_due", (ROSTER,), NONE, CANCEL_SLEPT),
    ("cancel_makes_due", (WINDOW,), NONE, CANCEL_SLEPT),
    ("park_reads_cancel", (WAKES,), NONE, CANCEL_SLEPT),
    ("busy_reads_cancel", (PLAIN, PLAIN), NONE, CANCEL_SLEPT),
    ("claim_takes_wake", (WAKES,), DIES_THEN_CANCEL, CANCEL_SLEPT),
    ("settling_marks", (ROSTER,), QUIET, SLEPT_THROUGH),
    ("claim_takes_wake batch_compares_lease", (WAKES,), QUIET, ENDED_UNDER),
    ("sees_arrival", (WAKES,), DIES, NOT_TOLD),
]


@pytest.mark.parametrize(
    ("precaution", "jobs", "mishaps", "fault"),
    WITHOUT,
    ids=[f"{number}-{case[0]}".replace(" ", "-and-") for number, case in enumerate(WITHOUT)],
)
def test_it_breaks_without(precaution: str, jobs: tuple[Job, ...], mishaps: Mishaps, fault: str) -> None:
    """``pytest -rP`` shows the shortest way to each fault."""
    require_unbroken(explored(ALL, jobs, mishaps))
    found = explored(without(precaution), jobs, mishaps, first=True)
    with pytest.raises(AssertionError) as failure:
        require_unbroken(found)
    assert str(failure.value).startswith(fault), failure.value
    print(f"without {precaution}, {failure.value}")


def test_a_worker_that_comes_back_ends_a_job_twice_if_nothing_is_compared() -> None:
    found = explored(without("generation"), (PLAIN,), PAUSED, known=(TAKEN_OVER,))
    assert set(found.broken) == {TAKEN_OVER, ENDED_TWICE}


def test_windows_that_change_while_a_job_looks_at_them_are_slept_through_without_their_lock() -> None:
    assert set(explored(replace(ALL, torn=True), (WINDOW,), QUIET).broken) == set()
    found = explored(replace(without("window_lock"), torn=True), (WINDOW,), QUIET)
    assert set(found.broken) == {WINDOW_SLEPT}


def test_a_wait_for_a_window_is_no_place_in_line() -> None:
    """Else a job would publish itself as it is set back, and be tried again without a pause."""
    assert set(explored(replace(ALL, window_waits_in_line=True), (WINDOW,), QUIET).broken) == {CUT_SHORT}


@pytest.mark.parametrize(
    ("jobs", "faults"),
    [((WAKES,), {CANCEL_SLEPT}), ((WINDOW,), {CANCEL_SLEPT}), ((PLAIN, PLAIN), {LATE})],
    ids=["park", "set-back", "postpone"],
)
def test_what_a_statement_can_do_that_read_another_row_before_it_changed(
    jobs: tuple[Job, ...], faults: set[str]
) -> None:
    """One statement of READ COMMITTED reads other rows as they were when it began. Then a row waits for its
    timer, though nothing keeps it; it never waits for ever, and a second cancel has it end at once."""
    found = explored(replace(ALL, torn=True), jobs, NONE, known=READ_EARLIER)
    assert set(found.broken) == faults
    assert found.stuck(all_ended) is None
