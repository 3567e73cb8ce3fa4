"""The gate: any thread shuts it on "not now"; only a probe opens it, at most once a second."""

from __future__ import annotations

import pytest

from worker.database_errors import DatabaseNotNow, Meaning, meaning_of, of_one_statement
from worker.gate import LONGEST_HOLD_S, Gate, sentence


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def not_now(said: str = "read-only") -> DatabaseNotNow:
    return DatabaseNotNow(Meaning("it takes no writes", "wait"), Exception(said))


class Probe:
    """Fails while it is told to, and counts its calls."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.tries = 0

    def __call__(self) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock)


def test_it_is_tried_at_most_once_a_second_and_opens_when_a_probe_writes(gate: Gate, clock: Clock) -> None:
    probe = Probe()
    assert gate.try_to_open(probe)
    assert probe.tries == 0
    gate.shut(not_now())
    probe.error = not_now()
    for _ in range(100):
        assert not gate.try_to_open(probe)
        clock.now += 0.1
    assert probe.tries in (9, 10)
    probe.error = None
    clock.now += 1
    assert gate.try_to_open(probe)
    assert gate.because is None
    assert gate.pauses == 1
    assert gate.paused_s == pytest.approx(11)


def test_followers_hear_of_each_change_once(gate: Gate, clock: Clock) -> None:
    heard: list[str | None] = []
    gate.follow(lambda: heard.append(gate.because))
    for _ in range(3):
        gate.shut(not_now())
    clock.now += 2
    gate.try_to_open(Probe())
    assert heard == ["it takes no writes (read-only): wait", None]


def test_the_log_says_it_once_at_the_beginning_and_once_at_the_end(
    gate: Gate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    for said in ("read-only", "read-only", "not there"):
        gate.shut(not_now(said))
    caplog.set_level("INFO")
    clock.now += 2
    gate.try_to_open(Probe())
    assert caplog.messages == [
        "no work is taken until the database serves us: it takes no writes (read-only): wait",
        "the database serves us again after 2.0 s: work is taken",
    ]


def test_where_it_shuts_again_at_once_each_hold_is_longer(gate: Gate, clock: Clock) -> None:
    """A statement that fails although the probe succeeds must not be repeated every second by every slot."""
    held = []
    for _ in range(6):
        gate.shut(not_now())
        began = clock.now
        while not gate.try_to_open(Probe()):
            clock.now += 0.5
        held.append(clock.now - began)
    assert held == [1, 2, 4, LONGEST_HOLD_S, LONGEST_HOLD_S, LONGEST_HOLD_S]
    clock.now += 60
    gate.shut(not_now())
    clock.now += 1
    assert gate.try_to_open(Probe())


def test_a_fault_of_the_probes_own_is_not_hidden(gate: Gate, clock: Clock) -> None:
    gate.shut(not_now())
    clock.now += 2
    probe = Probe()
    probe.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        gate.try_to_open(probe)
    assert gate.because is not None


def test_its_reason_is_one_line() -> None:
    assert sentence(ValueError("one\n  two")) == "one two"
    assert sentence(ValueError()) == "ValueError"


def lock_timeout() -> DatabaseNotNow:
    meaning = Meaning("a lock was not to be had", "see who holds it", one_statement=True)
    return DatabaseNotNow(meaning, Exception("canceling statement due to lock timeout"))


def test_one_statement_that_is_not_served_shuts_nothing(gate: Gate) -> None:
    heard: list[str | None] = []
    gate.follow(lambda: heard.append(gate.because))
    for _ in range(5):
        gate.shut(lock_timeout())
    assert (gate.because, gate.pauses, heard) == (None, 0, [])


def test_a_probe_that_is_not_served_keeps_it_shut(gate: Gate, clock: Clock) -> None:
    """No other code touches the probe's row: if even that is locked, the database serves no one."""
    probe = Probe()
    probe.error = lock_timeout()
    gate.shut(not_now())
    clock.now += 1
    assert not gate.try_to_open(probe)
    assert str(gate.because).startswith("a lock was not to be had")
    probe.error = None
    clock.now += 1
    assert gate.try_to_open(probe)
    assert gate.paused_s == pytest.approx(2)


@pytest.mark.parametrize(
    ("sqlstate", "alone"),
    [
        *((code, True) for code in ("57014", "55P03", "55006", "40P01", "40001")),
        *((code, False) for code in ("25006", "53100", "53300", "57P01", "57P03", "08006")),
        *((code, False) for code in ("42P01", "42501", "28P01", "3D000", "58030")),
    ],
)
def test_only_contention_is_about_one_statement(sqlstate: str, alone: bool) -> None:
    error = Exception("said")
    error.sqlstate = sqlstate  # type: ignore[attr-defined]
    meaning = meaning_of(error)
    assert meaning is not None
    assert of_one_statement(DatabaseNotNow(meaning, error)) is alone
