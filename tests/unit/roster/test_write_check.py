"""What a gateway answers ok to and does not do is told after two writes, not after six."""

from __future__ import annotations

from typing import Any

import pytest

from worker.errors import PermanentError
from worker.gateway.roster_plan import RosterPlan
from worker.roster.write_check import WriteCheck


def plan(name: str = "Ada") -> RosterPlan:
    document: dict[str, Any] = {"agents": {"list": [{"id": "mc-1", "name": name}]}}
    return RosterPlan(document, frozenset({"mc-1"}), frozenset(), {"mc-1": {"name": name}})


def test_two_ok_writes_that_change_nothing_end_it_with_what_they_were_for() -> None:
    check = WriteCheck()
    for _ in range(2):
        check.before_write(plan(), [])
        check.record_writes(1)
    with pytest.raises(PermanentError, match=r"answered ok to 2 config writes.* mc-1 \(name\)") as raised:
        check.before_write(plan(), [])
    assert "somebody else" not in str(raised.value)


def test_a_write_without_an_answer_or_with_some_effect_is_none_of_them() -> None:
    check = WriteCheck()
    for name, writes in (("Ada", 1), ("Ben", 1), ("Ben", 0), ("Ben", 1), ("Ada", 1), ("Ada", 0), ("Ada", 1)):
        check.before_write(plan(name), [])
        check.record_writes(writes)
    check.before_write(plan("Ben"), [])
    assert check.writes == 5
