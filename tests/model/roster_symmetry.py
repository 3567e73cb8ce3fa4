"""States of the roster protocol that differ in nothing that matters, taken for one: fewer to go through."""

from __future__ import annotations

import functools
from collections.abc import Hashable

from tests.model.explorer import Step
from tests.model.roster_protocol import Protocol, Steps
from tests.model.roster_world import OUTSIDER, Rules, World, Writer


def steps_of_any_two(protocol: Protocol, w: World) -> Steps:
    """The steps of a state, where it does not count which writer is called A, nor how long one goes on for
    itself that has lost its lease and will be turned away at its next write. In the way to a state that they
    lead to, A may be B from one step to the next."""
    for name, after, broken in protocol.steps(w):
        yield Step(name, _in_order(_without_doomed(after, protocol.rules)), broken)


def _without_doomed(w: World, rules: Rules) -> World:
    asked = {"write"} if rules.checks_lease and rules.bound else set()
    asked |= {"settle"} if rules.settles_under_lease else set()
    doomed = [me for me, each in enumerate(w.writers) if each.at in asked and w.lease != me]
    if not doomed:
        return w
    return w._replace(writers=tuple(Writer() if me in doomed else each for me, each in enumerate(w.writers)))


def _in_order(w: World) -> World:
    if len(w.wire) > 1:
        w = w._replace(wire=tuple(sorted(w.wire, key=_spelled)))
    if len(w.writers) != 2:
        return w
    first, second = (
        (w.lease == me, _spelled(writer), [_spelled(frame[1:]) for frame in w.wire if frame.sender == me])
        for me, writer in enumerate(w.writers)
    )
    if first >= second:
        return w
    renamed = (f if f.sender == OUTSIDER else f._replace(sender=1 - f.sender) for f in w.wire)
    return w._replace(
        writers=w.writers[::-1],
        lease=None if w.lease is None else 1 - w.lease,
        wire=tuple(sorted(renamed, key=_spelled)),
    )


@functools.cache
def _spelled(part: Hashable) -> str:
    """What parts of a state are put in order by. Spelling one takes ten times as long as finding it again."""
    return repr(part)
