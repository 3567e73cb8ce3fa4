"""A gateway's share of a process's slots."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from worker.jobs.messages import Message
from worker.runtime import gateway_slots as module
from worker.runtime.gateway_slots import GatewaySlots

HERE, THERE = uuid4(), uuid4()


def message(number: int) -> Message:
    return Message("tasks.sync_agent", {}, UUID(int=1), UUID(int=number))


def test_one_gateway_gets_its_share_and_others_theirs() -> None:
    slots = GatewaySlots(2)
    taken = [slots.acquire(HERE, message(n)) for n in range(4)]
    assert [slot is not None for slot in taken] == [True, True, False, False]
    assert slots.acquire(THERE, message(9)) is not None
    assert (slots.has_waiting(HERE), slots.has_waiting(THERE)) == (True, False)


def test_who_leaves_calls_the_one_that_has_waited_longest_once() -> None:
    slots = GatewaySlots(1)
    slot = slots.acquire(HERE, message(1))
    for number in (2, 3, 2):  # the clock has published it again
        assert slots.acquire(HERE, message(number)) is None
    assert slot is not None
    assert slots.release(HERE, slot) == [message(2)]
    slot = slots.acquire(HERE, message(2))
    assert slot is not None
    assert slots.release(HERE, slot) == [message(3)]
    assert not slots.has_waiting(HERE)


def test_where_work_goes_on_for_long_fewer_may_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = GatewaySlots(4)
    slot = slots.acquire(HERE, message(1))
    monkeypatch.setattr(module, "DOUBTFUL_S", -1.0)
    assert slots.acquire(HERE, message(2)) is not None
    assert slots.acquire(HERE, message(3)) is None
    monkeypatch.undo()
    assert slot is not None
    assert slots.release(HERE, slot) == [message(3)]


def test_however_many_gateways_take_all_that_they_can_a_later_one_finds_some_slots() -> None:
    slots = GatewaySlots(6, total=48)
    for _ in range(20):
        gateway = uuid4()
        while slots.acquire(gateway, message(1)) is not None:
            pass
    number = 0
    while slots.acquire(HERE, message(number)) is not None:
        number += 1
    assert number >= 1


def test_with_four_that_take_all_that_they_can_a_fifth_has_its_whole_share() -> None:
    slots = GatewaySlots(6, total=48)
    for gateway in (uuid4(), uuid4(), uuid4(), uuid4(), HERE):
        assert all(slots.acquire(gateway, message(number)) is not None for number in range(6))
