"""A gateway's share of a process's slots."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from worker.jobs.messages import Message
from worker.runtime import seats as module
from worker.runtime.seats import Seats

HERE, THERE = uuid4(), uuid4()


def message(number: int) -> Message:
    return Message("tasks.sync_agent", {}, UUID(int=1), UUID(int=number))


def test_one_gateway_gets_its_share_and_others_theirs() -> None:
    seats = Seats(2)
    taken = [seats.take(HERE, message(n)) for n in range(4)]
    assert [seat is not None for seat in taken] == [True, True, False, False]
    assert seats.take(THERE, message(9)) is not None
    assert (seats.crowded(HERE), seats.crowded(THERE)) == (True, False)


def test_who_leaves_calls_the_one_that_has_waited_longest_once() -> None:
    seats = Seats(1)
    seat = seats.take(HERE, message(1))
    for number in (2, 3, 2):  # the clock has published it again
        assert seats.take(HERE, message(number)) is None
    assert seat is not None
    assert seats.leave(HERE, seat) == [message(2)]
    seat = seats.take(HERE, message(2))
    assert seat is not None
    assert seats.leave(HERE, seat) == [message(3)]
    assert not seats.crowded(HERE)


def test_where_work_goes_on_for_long_fewer_may_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    seats = Seats(4)
    seat = seats.take(HERE, message(1))
    monkeypatch.setattr(module, "DOUBTFUL_S", -1.0)
    assert seats.take(HERE, message(2)) is not None
    assert seats.take(HERE, message(3)) is None
    monkeypatch.undo()
    assert seat is not None
    assert seats.leave(HERE, seat) == [message(3)]
