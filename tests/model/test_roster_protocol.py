"""All interleavings of two writers, their jobs, a gateway of each kind, an outsider, a crash, a lost answer:
what the roster writer's protocol promises holds in every one, and no longer once a precaution is left out
(decisions.md D1).

Exhaustive for these sizes, and for no others. Of time it takes one thing for granted, which `about_to_write`
sees to: a frame is carried out, or lost, before the lease of its sender has ended. What the promises are
worth where that is not so, the last test says. ``--whole-model`` explores the larger sizes too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest

from tests.model.explorer import Explored, explore
from tests.model.roster_protocol import (
    LOST_ENTRY,
    NOT_APPLIED,
    RESURRECTED,
    SLEPT_THROUGH,
    STILL_THERE,
    TWO_WRITERS,
    WIPED,
    Protocol,
)
from tests.model.roster_symmetry import steps_of_any_two
from tests.model.roster_world import RIGHT, STALE, Budget, Roster, RosterChange, Rules, World


@dataclass(frozen=True)
class Scene:
    """What some jobs want, and the roster that they find."""

    name: str
    changes: tuple[RosterChange, ...]
    roster: Roster = ()

    def explored(self, rules: Rules, *, known: tuple[str, ...] = ()) -> Explored[World]:
        protocol = Protocol(rules, self.changes, self.roster)
        return explore(protocol.start(), partial(steps_of_any_two, protocol), known=known)

    def first_broken(self, rules: Rules, *, known: tuple[str, ...] = ()) -> Explored[World]:
        """As far as the first fault, with the writers called by their names."""
        protocol = Protocol(rules, self.changes, self.roster)
        return explore(protocol.start(), protocol.steps, known=known, first_only=True)


ONE = Scene("one provision", (RosterChange("x"),))
TWO = Scene(
    "provision and delete", (RosterChange("x"), RosterChange("z", "remove", ends_row=True)), (("z", RIGHT),)
)
THREE = Scene(
    "two provisions and a delete", (RosterChange("x"), RosterChange("y"), *TWO.changes[1:]), TWO.roster
)
HEARTBEAT = RosterChange("x", only_present=True)
COMES_BACK = Scene(
    "delete, then provision, and heartbeats of all",
    (RosterChange("x", "remove"), RosterChange("x", after=(0,)), HEARTBEAT),
    (("x", STALE),),
)
GOES = Scene(
    "provision, then delete, and heartbeats of all",
    (RosterChange("x"), RosterChange("x", "remove", after=(0,), ends_row=True), HEARTBEAT),
)
CRASH_LOSS_EDIT = Budget(crashes=1, losses=1, edits=1, restarts=0, limits=0)
CRASH_LOSS = Budget(crashes=1, losses=1, edits=0, restarts=0, limits=0)
ALL_MISHAPS = Budget(crashes=1, losses=1, edits=1, restarts=1, limits=1)
BUT_EDITS = Budget(crashes=1, losses=1, edits=0, restarts=1, limits=1)
NEW = Rules(races=False, budget=CRASH_LOSS)
OLD = Rules(races=True, budget=CRASH_LOSS)


def everything_settled(world: World) -> bool:
    return all(intent.job == "ended" for intent in world.intents)


def require_unbroken(found: Explored[World], *, known: tuple[str, ...] = ()) -> None:
    """Raise an AssertionError that shows a shortest way to each fault, and to where nothing ends any more."""
    faults = {fault: way for fault, way in found.broken.items() if fault not in known}
    stuck = found.stuck(everything_settled) if not faults else None
    if stuck is not None:
        faults["an intent stays open, or a job waits, for ever"] = stuck
    ways = ["\n  ".join([f"{fault}:", *way]) for fault, way in faults.items()]
    assert not faults, "\n".join(ways)


@pytest.fixture
def whole_model(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--whole-model"))


CHECKED = [
    (NEW, THREE, CRASH_LOSS_EDIT, False),
    (NEW, COMES_BACK, CRASH_LOSS_EDIT, False),
    (NEW, GOES, CRASH_LOSS_EDIT, False),
    (NEW, TWO, ALL_MISHAPS, False),
    (OLD, ONE, ALL_MISHAPS, False),
    (OLD, TWO, CRASH_LOSS_EDIT, True),
    (OLD, TWO, BUT_EDITS, False),
    (OLD, COMES_BACK, CRASH_LOSS, False),
    (OLD, GOES, CRASH_LOSS, False),
    (NEW, THREE, ALL_MISHAPS, True),
    (OLD, THREE, CRASH_LOSS_EDIT, True),
    (OLD, COMES_BACK, CRASH_LOSS_EDIT, True),
    (OLD, GOES, CRASH_LOSS_EDIT, True),
]


def _named(case: tuple[Rules, Scene, Budget, bool]) -> str:
    rules, scene, budget, _ = case
    return f"{'old' if rules.races else 'new'}-{scene.name}-{''.join(map(str, budget))}"


@pytest.mark.parametrize("case", CHECKED, ids=map(_named, CHECKED))
def test_nothing_breaks_and_everything_ends(
    case: tuple[Rules, Scene, Budget, bool], whole_model: bool
) -> None:
    """On old gateways the owner's entry can be lost: the next test shows that there is one way only."""
    rules, scene, budget, large = case
    if large and not whole_model:
        pytest.skip("large: --whole-model explores it")
    known = (LOST_ENTRY,) if rules.races and budget.edits else ()
    found = scene.explored(replace(rules, budget=budget), known=known)
    require_unbroken(found, known=known)
    assert set(found.broken) == set(known)
    print(f"{len(found.came)} states")


@pytest.mark.parametrize("scene", [ONE, TWO], ids=["one", "two"])
def test_an_old_gateway_loses_the_owners_entry_in_the_true_race_and_in_no_other_way(scene: Scene) -> None:
    """Once no edit of the outsider meets a write of ours inside the gateway, none is ever lost."""
    apart = replace(OLD, overlaps=False, budget=CRASH_LOSS_EDIT)
    found = scene.explored(apart)
    require_unbroken(found)
    assert not any(world.rolled_back for world in found.came)


def test_no_job_sleeps_through_the_settling_of_its_intent() -> None:
    """The dispatcher publishes parked jobs at any time, while writers settle."""
    for rules in (NEW, OLD):
        require_unbroken(ONE.explored(replace(rules, dispatcher_visits=True)))


WITHOUT = [
    ("about_to_write", replace(NEW, checks_lease=False), COMES_BACK, (), TWO_WRITERS),
    ("about_to_write", replace(OLD, checks_lease=False), TWO, (TWO_WRITERS,), RESURRECTED),
    ("send_by", replace(NEW, bound=False), TWO, (), TWO_WRITERS),
    ("send_by", replace(OLD, bound=False), TWO, (TWO_WRITERS,), RESURRECTED),
    (
        "the read back",
        replace(OLD, reads_back=False, budget=CRASH_LOSS_EDIT),
        ONE,
        (LOST_ENTRY,),
        NOT_APPLIED,
    ),
    ("the lease in _settle", replace(NEW, settles_under_lease=False), GOES, (), NOT_APPLIED),
    (
        "the lock of intent_states",
        replace(NEW, parks_locked=False, dispatcher_visits=True),
        ONE,
        (),
        SLEPT_THROUGH,
    ),
]


@pytest.mark.parametrize(
    ("precaution", "rules", "scene", "known", "fault"),
    WITHOUT,
    ids=[f"{'old' if case[1].races else 'new'}-without-{case[0]}".replace(" ", "-") for case in WITHOUT],
)
def test_it_breaks_without(
    precaution: str, rules: Rules, scene: Scene, known: tuple[str, ...], fault: str
) -> None:
    """``pytest -rP`` shows the shortest way to each fault."""
    found = scene.first_broken(rules, known=known)
    with pytest.raises(AssertionError) as failure:
        require_unbroken(found, known=known)
    assert str(failure.value).startswith(fault), failure.value
    print(f"without {precaution}, {failure.value}")


@pytest.mark.parametrize(
    ("rules", "scene", "faults"),
    [
        (NEW, TWO, {TWO_WRITERS}),
        (NEW, COMES_BACK, {TWO_WRITERS, WIPED, NOT_APPLIED}),
        (NEW, GOES, {TWO_WRITERS, RESURRECTED, STILL_THERE}),
        (OLD, ONE, {TWO_WRITERS}),
    ],
    ids=["new-two", "new-comes-back", "new-goes", "old-one"],
)
def test_what_a_frame_that_outlives_its_senders_lease_can_do(
    rules: Rules, scene: Scene, faults: set[str]
) -> None:
    """No release lets us prevent it: agents.delete takes no hash, and where nothing of a write is left, the
    config's hash is the old one again. So `about_to_write` says by when a frame must have left."""
    late = replace(rules, outlives=True)
    assert set(scene.explored(late, known=(TWO_WRITERS,)).broken) == faults
