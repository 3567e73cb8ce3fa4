"""The steps of a rotation as one undisturbed run shows them, and the moments between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.acceptance.proxy import Frame, Wanted
from tests.acceptance.row_watch import CommittedStep


@dataclass(frozen=True)
class Subject:
    """An agent that is re-keyed. ``scratch_id``: what its heartbeat scratch goes by, where there is one."""

    agent_id: UUID
    openclaw_id: str
    scratch_id: str | None

    def is_meant(self, params: Mapping[str, Any]) -> bool:
        """Whether a call's parameters name this agent."""
        if self.scratch_id is not None and params.get("jobId") == self.scratch_id:
            return True
        return any(self.openclaw_id in str(value) for value in params.values())


@dataclass(frozen=True)
class Call:
    """The ``nth`` call of its kind (from 1) in the job. ``shared``: its parameters name no agent."""

    method: str
    file: str | None
    nth: int
    shared: bool
    at: float
    answered_at: float

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method, self.file, "again" if self.nth > 1 else None)))

    def by(self, subject: Subject) -> Wanted:
        """Recognises this call of the subject's job."""
        seen = 0

        def is_wanted(method: str, params: Mapping[str, Any]) -> bool:
            nonlocal seen
            if (method, params.get("name")) != (self.method, self.file):
                return False
            if not (self.shared or subject.is_meant(params)):
                return False
            seen += 1
            return seen == self.nth

        return is_wanted


@dataclass(frozen=True)
class Transaction:
    """All that one transaction writes about the agent, by its ``first`` step."""

    first: str
    steps: tuple[str, ...]
    at: float

    def __str__(self) -> str:
        return self.first


Step = Call | Transaction


@dataclass(frozen=True)
class Moment:
    """A point at which a worker may die: ``before`` the step at ``index`` takes effect, or after a call was
    carried out and before its answer comes. Of a transaction, before is in the middle of it."""

    index: int
    step: Step
    before: bool

    @property
    def done(self) -> int:
        """How many steps have taken effect."""
        return self.index + (0 if self.before else 1)

    @property
    def shared(self) -> bool:
        """Whether it is a call that names no agent."""
        return isinstance(self.step, Call) and self.step.shared

    def __str__(self) -> str:
        if isinstance(self.step, Transaction):
            return f"in the transaction '{self.step}'"
        return f"{'before' if self.before else 'after'} {self.step}"


def steps_of(subject: Subject, frames: Sequence[Frame], noted: Sequence[CommittedStep]) -> list[Step]:
    """The steps of a job that ran alone, in order."""
    steps: list[Step] = []
    counts: dict[tuple[str, Any], int] = {}
    for frame in frames:
        kind = (frame.method, frame.params.get("name"))
        counts[kind] = counts.get(kind, 0) + 1
        assert frame.answered_at is not None
        shared = not subject.is_meant(frame.params)
        steps.append(Call(*kind, counts[kind], shared, frame.at, frame.answered_at))
    written: dict[int, list[CommittedStep]] = {}
    for each in noted:
        if each.agent_id == subject.agent_id:
            written.setdefault(each.transaction, []).append(each)
    for group in written.values():
        steps.append(Transaction(group[0].step, tuple(each.step for each in group), group[0].at))
    return sorted(steps, key=lambda step: step.at)


@dataclass(frozen=True)
class UndisturbedRotation:
    """What an undisturbed rotation does on a release, step by step."""

    steps: Sequence[Step]

    @property
    def states(self) -> list[Moment]:
        """A death before every step and after the last call: each leaves the world in another state."""
        return [Moment(index, step, before=True) for index, step in enumerate(self.steps)]

    @property
    def moments(self) -> list[Moment]:
        """The same, and deaths after calls that wrote something: the world is as before the next step, but
        the worker may have seen the answer or not."""
        after = [
            Moment(index, step, before=False)
            for index, step in enumerate(self.steps)
            if isinstance(step, Call) and step.method.endswith((".set", ".patch", ".send"))
        ]
        return [*self.states, *after]

    @property
    def stored(self) -> int:
        """Where the hash of the new token is stored as pending."""
        return self._where("pending stored")

    @property
    def carrier_set(self) -> int:
        """Where the token comes into the workspace."""
        return next(
            n
            for n, step in enumerate(self.steps)
            if n > self.stored and isinstance(step, Call) and step.method == "agents.files.set"
        )

    @property
    def commit(self) -> int:
        """Where the new hash becomes the agent's."""
        return self._where("hash changed")

    @property
    def leaving(self) -> int:
        """Where the agent has its files, and only its wake is to come."""
        return self._where("phase wake", "wake sent")

    def half_done(self, moment: Moment) -> bool:
        """Whether the new token stands in the workspace, and its hash is not the agent's yet."""
        return self.carrier_set < moment.done <= self.commit

    def changes(self, moment: Moment) -> tuple[bool, bool, bool]:
        """Whether then the token is a new one, the hash is a new one, and a hash is pending."""
        done = moment.done
        return done > self.carrier_set, done > self.commit, self.stored < done <= self.commit

    def _where(self, *written: str) -> int:
        return next(
            n
            for n, step in enumerate(self.steps)
            if isinstance(step, Transaction) and not set(written).isdisjoint(step.steps)
        )
