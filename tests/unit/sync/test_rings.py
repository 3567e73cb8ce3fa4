"""Who is in which ring (rules.md 56)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from worker.errors import PermanentError
from worker.jobs.requests import BadRequestError, Canary, RollOut, canary_of, seconds_of
from worker.sync.roll_outs.rings import Changing, change_of, plan_rings, require_looked_at, restarts

WEST, EAST = UUID(int=1), UUID(int=2)


def agent(name: str, change: str = "a", gateway: UUID = WEST, **more: Any) -> Changing:
    return Changing(uuid4(), name, gateway, more.pop("is_main", False), change, **more)


def row(name: str, diff: str, **columns: Any) -> Any:
    values = {
        "agent_id": uuid4(),
        "agent_name": name,
        "board_id": None,
        "board_name": None,
        "openclaw_id": f"mc-{name}",
        "gateway_id": WEST,
        "is_main": False,
        "status": "succeeded",
        "reason": None,
        "reason_code": None,
        "files": {"SOUL.md": {"action": "update", "diff": diff}},
        "roster": {"action": "unchanged"},
        **columns,
    }
    return SimpleNamespace(**values)


def diff(old: str, new: str, place: int = 1) -> str:
    return f"--- on the gateway\n+++ rendered\n@@ -{place} +{place} @@\n some context\n-{old}\n+{new}"


def test_agents_change_alike_where_only_their_own_names_and_places_differ() -> None:
    ada = change_of(row("Ada", diff("I am Ada.", "I am Ada, anew.")))
    ben = change_of(row("Ben", diff("I am Ben.", "I am Ben, anew.", place=7)))
    other = change_of(row("Cy", diff("I am Cy.", "I am Cy, otherwise.")))
    assert ada is not None
    assert ben is not None
    assert other is not None
    assert ada.change == ben.change != other.change
    entry = change_of(row("Di", "", files={}, roster={"action": "update", "changes": {"name": "Di"}}))
    same = change_of(row("Ed", "", files={}, roster={"action": "update", "changes": {"name": "Ed"}}))
    assert entry is not None
    assert same is not None
    assert (entry.entry, entry.change) == (True, same.change)
    assert change_of(row("Flo", "", files={"SOUL.md": {"action": "preserved"}})) is None
    assert change_of(row("Gus", "", status="skipped", reason="Its board is paused.")) is None
    failing = change_of(row("Hal", "", status="failed", reason="Broken.", files={}))
    assert failing is not None
    assert failing.fails == "Broken."


def test_the_first_ring_has_each_change_and_the_later_ones_grow() -> None:
    many = [agent(f"A{n:03}", gateway=EAST if n % 2 else WEST) for n in range(100)]
    few = [agent("B", "b"), agent("C", "c"), agent("Main", "main", is_main=True)]
    plan = plan_rings([*few, *many], Canary(count=3), {})
    assert [len(ring) for ring in plan.rings] == [3, 11, 33, 56]
    assert sorted(each.change for each in plan.rings[0]) == ["a", "b", "c"]
    assert plan.left_out == [["Main"]]
    assert plan.rings[-1][-1].name == "Main"
    assert {each.gateway_id for each in plan.rings[1]} == {WEST}
    assert [len(ring) for ring in plan_rings(many, Canary(percent=5), {}).rings] == [5, 15, 45, 35]
    assert [len(ring) for ring in plan_rings(many[:2], Canary(count=9), {}).rings] == [2]
    named = plan_rings(many, Canary(agents=(many[7].agent_id,)), {})
    assert [each.name for each in named.rings[0]] == ["A007"]
    idle, gone = uuid4(), uuid4()
    with pytest.raises(
        PermanentError, match=r"nothing would change for Ida, .* agents that change, such as A0"
    ):
        plan_rings(many, Canary(agents=(idle,)), {idle: "Ida"})
    with pytest.raises(PermanentError, match=rf"canary: Eve, {gone} cannot be in the first ring"):
        require_looked_at([many[0].agent_id, idle, gone], {many[0].agent_id}, {idle: "Eve"})


def test_only_gateways_that_restart_are_counted_once_for_each_ring_in_which_an_entry_changes() -> None:
    rings = [
        [agent("A", entry=True)],
        [agent("B", gateway=EAST, entry=True), agent("C")],
        [agent("D", entry=True)],
    ]
    assert restarts(rings, [WEST]) == {WEST: 2}
    assert restarts(rings, []) == {}


@pytest.mark.parametrize("given", ["0", "-1", "0%", "101%", "", "three", "3,5", "1e3", "5 %%"])
def test_a_canary_is_a_number_a_part_or_ids(given: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canary_of(given)
    with pytest.raises(BadRequestError, match="canary must be a number from 1 on"):
        RollOut.parse({"gateway_id": str(WEST), "canary": given})


def test_what_a_canary_and_a_wait_may_be() -> None:
    assert canary_of(" 3 ") == Canary(count=3)
    assert canary_of("2.5%") == Canary(percent=2.5)
    assert canary_of(f"{WEST}, {EAST},{WEST}") == Canary(agents=(WEST, EAST))
    assert [seconds_of(each) for each in ("90s", "10m", "2 h", "1d", "0s")] == [90, 600, 7200, 86_400, 0]
    for wrong in ("10", "m", "31d", "-1s", "1w"):
        with pytest.raises(BadRequestError, match="wait must be a time of at most 30 days"):
            RollOut.parse({"gateway_id": str(WEST), "canary": "1", "wait": wrong})
