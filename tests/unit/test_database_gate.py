"""The gate: any thread closes it on "not now"; only a probe opens it, at most once a second."""

from __future__ import annotations

import pytest

from worker.database_errors import DatabaseNotNow, Meaning, meaning_of, of_one_statement
from worker.database_gate import LONGEST_HOLD_S, DatabaseGate, sentence


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
def gate(clock: Clock) -> DatabaseGate:
    return DatabaseGate(clock)


def test_it_is_tried_at_most_once_a_second_and_opens_when_a_probe_writes(
    gate: DatabaseGate, clock: Clock
) -> None:
    probe = Probe()
    assert gate.try_to_open(probe)
    assert probe.tries == 0
    gate.close(not_now())
    probe.error = not_now()
    for _ in range(100):
        assert not gate.try_to_open(probe)
        clock.now += 0.1
    assert probe.tries in (9, 10)
    probe.error = None
    clock.now += 1
    assert gate.try_to_open(probe)
    assert gate.closed_by is None
    assert gate.pauses == 1
    assert gate.paused_s == pytest.approx(11)


def test_listeners_hear_of_each_change_once(gate: DatabaseGate, clock: Clock) -> None:
    heard: list[str | None] = []
    gate.add_listener(lambda: heard.append(gate.closed_by))
    for _ in range(3):
        gate.close(not_now())
    clock.now += 2
    gate.try_to_open(Probe())
    assert heard == ["it takes no writes (read-only): wait", None]


def test_the_log_says_it_once_at_the_beginning_and_once_at_the_end(
    gate: DatabaseGate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    for said in ("read-only", "read-only", "not there"):
        gate.close(not_now(said))
    caplog.set_level("INFO")
    clock.now += 2
    gate.try_to_open(Probe())
    assert caplog.messages == [
        "no work is taken until the database serves us: it takes no writes (read-only): wait",
        "the database serves us again after 2.0 s: work is taken",
    ]


def test_where_it_closes_again_at_once_each_hold_is_longer(gate: DatabaseGate, clock: Clock) -> None:
    """A statement that fails although the probe succeeds must not be repeated every second by every slot."""
    held = []
    for _ in range(6):
        gate.close(not_now())
        began = clock.now
        while not gate.try_to_open(Probe()):
            clock.now += 0.5
        held.append(clock.now - began)
    assert held == [1, 2, 4, LONGEST_HOLD_S, LONGEST_HOLD_S, LONGEST_HOLD_S]
    clock.now += 60
    gate.close(not_now())
    clock.now += 1
    assert gate.try_to_open(Probe())


def test_a_fault_of_the_probes_own_is_not_hidden(gate: DatabaseGate, clock: Clock) -> None:
    gate.close(not_now())
    clock.now += 2
    probe = Probe()
    probe.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        gate.try_to_open(probe)
    assert gate.closed_by is not None


def test_its_reason_is_one_line() -> None:
    assert sentence(ValueError("one\n  two")) == "one two"
    assert sentence(ValueError()) == "ValueError"


def lock_timeout() -> DatabaseNotNow:
    meaning = Meaning("a lock was not to be had", "see who holds it", one_statement=True)
    return DatabaseNotNow(meaning, Exception("canceling statement due to lock timeout"))


def test_one_statement_that_is_not_served_closes_nothing(gate: DatabaseGate) -> None:
    heard: list[str | None] = []
    gate.add_listener(lambda: heard.append(gate.closed_by))
    for _ in range(5):
        gate.close(lock_timeout())
    assert (gate.closed_by, gate.pauses, heard) == (None, 0, [])


def test_a_probe_that_is_not_served_keeps_it_closed(gate: DatabaseGate, clock: Clock) -> None:
    """No other code touches the probe's row: if even that is locked, the database serves no one."""
    probe = Probe()
    probe.error = lock_timeout()
    gate.close(not_now())
    clock.now += 1
    assert not gate.try_to_open(probe)
    assert str(gate.closed_by).startswith("a lock was not to be had")
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
