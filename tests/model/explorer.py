"""Explores every state that a set of steps can reach, shortest way first."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

StateT = TypeVar("StateT", bound=Hashable)


class Step(NamedTuple, Generic[StateT]):
    """One thing that may happen next: its name, the state after it, and what it broke, if anything."""

    name: str
    after: StateT
    broken: str | None = None


@dataclass
class Explored(Generic[StateT]):
    """All states reached from ``start``. ``came``: how each was reached first, so by a shortest way.
    ``broken``: the ways to what went wrong, by what it was, each of them shortest."""

    start: StateT
    came: dict[StateT, tuple[StateT, str] | None] = field(default_factory=dict)
    broken: dict[str, Sequence[str]] = field(default_factory=dict)
    before: dict[StateT, list[StateT]] = field(default_factory=dict)

    def way_to(self, state: StateT) -> list[str]:
        """The names of the steps from the start to ``state``."""
        names: list[str] = []
        origin = self.came[state]
        while origin is not None:
            names.append(origin[1])
            origin = self.came[origin[0]]
        return names[::-1]

    def stuck(self, goal: Callable[[StateT], bool]) -> list[str] | None:
        """A shortest way to a state from which no state that satisfies ``goal`` can be reached any more;
        None where there is none. What can always still happen does, under fairness."""
        hopeful = {state for state in self.came if goal(state)}
        queue = deque(hopeful)
        while queue:
            for state in self.before.get(queue.popleft(), ()):
                if state not in hopeful:
                    hopeful.add(state)
                    queue.append(state)
        lost = next((state for state in self.came if state not in hopeful), None)
        return None if lost is None else self.way_to(lost)


def explore(
    start: StateT,
    steps: Callable[[StateT], Iterable[Step[StateT]]],
    *,
    known: Collection[str] = (),
    first_only: bool = False,
    most: int = 2_000_000,
) -> Explored[StateT]:
    """Every state that is reachable from ``start``, breadth first; nothing goes on from a broken one, unless
    it is broken in a ``known`` way. ``first_only``: end as soon as one is broken in any other.

    Raises RuntimeError beyond ``most`` states: the model is then too large to be checked exhaustively.
    """
    found = Explored(start)
    found.came[start] = None
    gc.disable()  # nothing here goes in circles, and looking for circles takes most of the time
    try:
        _go_through(found, steps, known, first_only, most)
    finally:
        gc.enable()
    return found


def _go_through(
    found: Explored[StateT],
    steps: Callable[[StateT], Iterable[Step[StateT]]],
    known: Collection[str],
    first_only: bool,
    most: int,
) -> None:
    start = found.start
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for name, after, broken in steps(state):
            if broken is not None:
                if broken not in found.broken:
                    found.broken[broken] = [*found.way_to(state), name]
                if broken not in known:
                    if first_only:
                        return
                    continue
            found.before.setdefault(after, []).append(state)
            if after not in found.came:
                found.came[after] = (state, name)
                queue.append(after)
                if len(found.came) > most:
                    raise RuntimeError(f"more than {most} states")
