"""The roster writer's protocol as a machine: each step is one database transaction, or one thing that happens
to a frame, and has the name of the code that does it.

Time is abstract: a lease may run out at any moment, a frame may take for ever, anybody may pause anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.model.explorer import Step
from tests.model.roster_world import (
    ABSENT,
    OUTSIDER,
    OWNERS,
    RIGHT,
    STALE,
    Config,
    Frame,
    Intent,
    Roster,
    RosterChange,
    Rules,
    World,
    Writer,
)

NOTHING = Config(())
Steps = Iterator[Step[World]]
LOST_ENTRY = "the owner's entry is lost"
TWO_WRITERS = "two writers' frames are on their way at once"
NOT_APPLIED = "settled as applied, and not in the roster"
STILL_THERE = "settled as removed, and still in the roster"
RESURRECTED = "a deleted agent is back, and nobody wanted it"
WIPED = "an agent is gone, and nobody wanted that"
NEVER_NOTED = "settled without a word on whether the agent was there before"
SLEPT_THROUGH = "a job waits for a settled intent"


@dataclass(frozen=True)
class Protocol:
    """The steps that are possible in a state: one gateway, some changes, ``writers`` worker processes."""

    rules: Rules
    changes: tuple[RosterChange, ...]
    roster: Roster = ()
    writers: int = 2

    def start(self) -> World:
        """Nobody has asked for anything yet, and every agent has its row."""
        return World(
            config=Config(Config(self.roster).having(((OWNERS, STALE),))),
            rows=frozenset(wanted.agent for wanted in self.changes),
            intents=(Intent(),) * len(self.changes),
            writers=(Writer(),) * self.writers,
            budget=self.rules.budget,
        )

    def steps(self, w: World) -> Steps:
        """All that may happen next."""
        for n in range(len(self.changes)):
            yield from self._job(w, n)
        for me in range(self.writers):
            yield from self._writer(w, me)
        for frame in dict.fromkeys(w.wire):
            yield from self._carry_out(w, frame)
        yield from self._mishaps(w)

    # --- a job: record_intents with park, intent_states with park, mark_waiting_for --------------------

    def _job(self, w: World, n: int) -> Steps:
        wanted, intent = self.changes[n], w.intents[n]
        if intent.job == "before" and all(w.intents[m].job == "ended" for m in wanted.after):
            yield Step(f"record_intents, park: {wanted}", _job_at(w, n, "parked", status="open"))
        elif intent.job == "parked" and self.rules.dispatcher_visits:
            yield Step(f"publish_due: {wanted}", _job_at(w, n, "published"))
        elif intent.job == "published" and self.rules.dispatcher_visits:
            yield Step(f"claim: {wanted}", _job_at(w, n, "looking"))
        elif intent.job in ("looking", "published") and intent.status != "open":
            gone = {wanted.agent} if wanted.ends_row and intent.status == "applied" else set()
            ended = _job_at(w, n, "ended")._replace(rows=w.rows - gone)
            yield Step(f"intent_states, go on: {wanted}", ended)
        elif intent.job == "looking" and self.rules.parks_locked:
            yield Step(f"intent_states, park: {wanted}", _job_at(w, n, "parked"))
        elif intent.job == "looking":
            yield Step(f"intent_states: {wanted} is open", _job_at(w, n, "parking"))
        elif intent.job == "parking":
            slept = SLEPT_THROUGH if intent.status != "open" else None
            yield Step(f"park: {wanted}", _job_at(w, n, "parked"), slept)

    # --- a writer: write_roster, step by step ------------------------------------------------------------

    def _writer(self, w: World, me: int) -> Steps:
        writer, name = w.writers[me], "AB"[me]
        wanted = tuple(n for n, intent in enumerate(w.intents) if intent.status == "open")
        match writer.at:
            case "idle" if wanted and self._is_free(w):
                taken = Writer("look", wanted, self._hopeless(w, wanted))
                yield Step(f"{name}: roster_lease, open_intents", _with(w, me, taken, lease=me))
            case "look":
                yield Step(f"{name}: _look, note_present", self._look(w, me))
            case "write" if not self.rules.checks_lease:
                yield self._send(w, me, f"{name}: send, having asked nobody")
            case "write" if w.lease != me:
                yield Step(f"{name}: about_to_write says the lease is lost", _with(w, me, Writer()))
            case "write" if self.rules.bound:
                yield self._send(w, me, f"{name}: about_to_write, send in time")
            case "write":
                yield Step(f"{name}: about_to_write", _with(w, me, writer._replace(at="send")))
            case "send":
                yield self._send(w, me, f"{name}: send")
            case "restart":
                if not w.restart_due:
                    yield Step(f"{name}: _await_return", _with(w, me, writer._replace(at="look")))
                elif w.lease == me:
                    late = _with(w, me, Writer(), lease=None, not_before=True)
                    yield Step(f"{name}: the restart comes late, release", late)
            case "settle":
                yield from self._settle(w, me)

    def _is_free(self, w: World) -> bool:
        return w.lease is None and not w.limited and not w.not_before and self._is_quiet(w)

    def _is_quiet(self, w: World) -> bool:
        """Whether a lease may end, or begin: without ``outlives``, no frame lives as long as a lease."""
        return self.rules.outlives or not w.wire

    def _hopeless(self, w: World, batch: tuple[int, ...]) -> frozenset[int]:
        """`RosterBatch.read`: agents without a row, and agents that are leaving."""
        leaving = {self.changes[n].agent for n in batch if self.changes[n].change == "remove"}
        changes = ((n, self.changes[n]) for n in batch if self.changes[n].change == "reconcile")
        return frozenset(n for n, wanted in changes if wanted.agent not in w.rows or wanted.agent in leaving)

    def _look(self, w: World, me: int) -> World:
        """`_look` and `plan_roster`: what is to be written next, if anything."""
        writer, intents = w.writers[me], list(w.intents)
        for n in writer.batch:
            if intents[n].present_before is None:
                there = w.config.of(self.changes[n].agent) != ABSENT
                intents[n] = intents[n]._replace(present_before=there)
        absent = {n for n in writer.batch if w.config.of(self.changes[n].agent) == ABSENT}
        refused = writer.refused | {n for n in absent if self.changes[n].only_present}
        seen = writer._replace(read=w.config, refused=refused)
        if self._planned(seen):
            return _with(w, me, seen._replace(at="write"), intents=tuple(intents))
        return _with(w, me, seen._replace(at="settle", read=NOTHING), intents=tuple(intents))

    def _planned(self, writer: Writer) -> Roster:
        """What the next frame of the writer changes: all entries in one patch, removals one by one."""
        read, left = writer.read, [self.changes[n] for n in writer.batch if n not in writer.refused]
        entries = {wanted.agent: RIGHT for wanted in left if wanted.change == "reconcile"}
        patch = tuple(sorted((agent, RIGHT) for agent in entries if read.of(agent) != RIGHT))
        gone = [
            (wanted.agent, ABSENT) for wanted in left if wanted.change == "remove" and read.of(wanted.agent)
        ]
        return patch or tuple(sorted(gone))[:1]

    def _send(self, w: World, me: int, name: str) -> Step[World]:
        writer = w.writers[me]
        changes = self._planned(writer)
        kind: Any = "agents.delete" if changes[0][1] == ABSENT else "config.patch"
        frame = Frame(me, kind, writer.read if kind == "config.patch" else NOTHING, changes)
        others = any(other.sender not in (me, OUTSIDER) for other in w.wire)
        after = _with(w, me, writer._replace(at="sent", read=NOTHING), wire=(*w.wire, frame))
        return Step(f"{name} {kind} {_said(changes)}", after, TWO_WRITERS if others else None)

    def _settle(self, w: World, me: int) -> Steps:
        writer, name = w.writers[me], "AB"[me]
        if self.rules.settles_under_lease and w.lease != me:
            yield Step(f"{name}: _settle says the lease is lost", _with(w, me, Writer()))
            return
        intents, broken = list(w.intents), None
        for n in writer.batch:
            refused, wanted = n in writer.refused, self.changes[n]
            if not refused and wanted.agent not in writer.undone:
                there = w.config.of(wanted.agent)
                if wanted.change == "reconcile" and there != RIGHT:
                    broken = NOT_APPLIED
                elif wanted.change == "remove" and there != ABSENT:
                    broken = STILL_THERE
            if intents[n].present_before is None:
                broken = NEVER_NOTED
            if intents[n].status == "open":
                job = self._woken(n) if intents[n].job == "parked" else intents[n].job
                intents[n] = intents[n]._replace(status="refused" if refused else "applied", job=job)
        lease = None if w.lease == me else w.lease
        after = _with(w, me, Writer(), lease=lease, intents=tuple(intents))
        yield Step(f"{name}: _settle, release", after, broken)

    def _woken(self, n: int) -> Any:
        """A job that nobody waits for may end at once: when it does makes no difference to anybody."""
        matters = self.rules.dispatcher_visits or self.changes[n].ends_row
        return "published" if matters or any(n in wanted.after for wanted in self.changes) else "ended"

    # --- a gateway: what becomes of a frame --------------------------------------------------------------

    def _carry_out(self, w: World, frame: Frame) -> Steps:
        who = "outsider" if frame.sender == OUTSIDER else "AB"[frame.sender]
        what = f"gateway: {frame.kind} of {who}"
        if frame.begun is not None:
            yield self._land(w, frame, frame.begun, f"{what} lands")
        elif frame.kind == "config.patch" and frame.base != w.config:
            yield Step(f"{what} is refused as stale", _answered(w, frame, "look"))
        elif self.rules.races:
            begun = frame._replace(begun=w.config, base=NOTHING)
            yield Step(f"{what} begins", w._replace(wire=_swap(w.wire, frame, begun)))
        else:
            yield self._land(w, frame, w.config, f"{what} is carried out")
        if frame.kind == "config.patch" and frame.begun is None and w.budget.limits and frame.awaited:
            after = _answered(w, frame, "idle")._replace(limited=True, budget=_less(w, "limits"))
            after = after._replace(lease=None if w.lease == frame.sender else w.lease)
            yield Step(f"{what} is over the limit, release", after)

    def _land(self, w: World, frame: Frame, base: Config, name: str) -> Step[World]:
        config, broken = Config(base.having(frame.changes)), None
        agents = {wanted.agent for wanted in self.changes}
        changed = {agent for agent in agents if config.of(agent) != w.config.of(agent)}
        after = _answered(w, frame, self._after_ok(frame))
        if self.rules.races:
            due = w.restart_due or frame.kind == "config.patch"
            after = _outdated(after)._replace(restart_due=due)
        if frame.sender == OUTSIDER:
            after = self._rolled_back(after, frozenset(changed))
        else:
            broken = self._harm(w, config, changed - w.rolled_back)
        return Step(f"{name}: {_said(frame.changes)}", after._replace(config=config), broken)

    def _rolled_back(self, w: World, agents: frozenset[str]) -> World:
        writers = tuple(
            each._replace(undone=each.undone | agents)
            if each.at == "settle" and self.rules.reads_back
            else each
            for each in w.writers
        )
        return w._replace(rolled_back=w.rolled_back | agents, writers=writers)

    def _after_ok(self, frame: Frame) -> Any:
        if not self.rules.reads_back:
            return "settle"
        return "restart" if self.rules.races and frame.kind == "config.patch" else "look"

    def _harm(self, w: World, config: Config, changed: set[str]) -> str | None:
        """What a landing of ours does that nobody asked for."""
        if w.config.of(OWNERS) == RIGHT and config.of(OWNERS) != RIGHT:
            return LOST_ENTRY
        wanted_states = zip(self.changes, w.intents, strict=True)
        cared_for = {v.agent for v, intent in wanted_states if intent.status == "open" and not v.only_present}
        for agent in changed - cared_for:  # of the others, the read back sees what became of them
            if config.of(agent) == ABSENT:
                return WIPED
            if w.config.of(agent) == ABSENT:
                return RESURRECTED
        return None

    # --- mishaps -----------------------------------------------------------------------------------------

    def _mishaps(self, w: World) -> Steps:
        if w.lease is not None and self._is_quiet(w):
            yield Step(f"the lease of {'AB'[w.lease]} runs out", w._replace(lease=None))
        if w.limited:
            yield Step("the rate limit is over", w._replace(limited=False))
        if w.restart_due:
            yield Step("the restart comes", self._restarted(w))
        if w.budget.restarts:
            restarted = self._restarted(w)._replace(budget=_less(w, "restarts"))
            yield Step("the gateway restarts by itself", restarted)
        if w.budget.edits and (self.rules.overlaps or not w.wire):
            edit = Frame(OUTSIDER, "edit", NOTHING, ((OWNERS, RIGHT),))
            sent = w._replace(wire=(*w.wire, edit), budget=_less(w, "edits"))
            if self.rules.overlaps:
                yield from self._carry_out(sent, edit)
            else:
                yield self._land(sent, edit, w.config, "gateway: edit of outsider, all at once")
        for me, writer in enumerate(w.writers):
            if writer.at != "idle" and w.budget.crashes:
                dead = _with(w, me, Writer(), wire=_unheard(w.wire, me), budget=_less(w, "crashes"))
                yield Step(f"{'AB'[me]}: crashes", dead)
            if writer.at == "sent" and w.budget.losses:
                deaf = writer._replace(at="look")
                after = _with(w, me, deaf, wire=_unheard(w.wire, me), budget=_less(w, "losses"))
                yield Step(f"{'AB'[me]}: the answer is lost, _await_return", after)

    def _restarted(self, w: World) -> World:
        """Connections end: what had not come to the gateway never does, nor does any answer. A write that had
        begun has landed before, or never will."""
        writers = tuple(each._replace(at="look") if each.at == "sent" else each for each in w.writers)
        return w._replace(writers=writers, wire=(), restart_due=False, not_before=False)


def _said(changes: Roster) -> str:
    return ", ".join(f"-{agent}" if value == ABSENT else f"+{agent}" for agent, value in changes)


def _with(w: World, me: int, writer: Writer, **changes: Any) -> World:
    return w._replace(writers=(*w.writers[:me], writer, *w.writers[me + 1 :]), **changes)


def _job_at(w: World, n: int, job: Any, **changes: Any) -> World:
    intent = w.intents[n]._replace(job=job, **changes)
    return w._replace(intents=(*w.intents[:n], intent, *w.intents[n + 1 :]))


def _less(w: World, mishap: str) -> Any:
    return w.budget._replace(**{mishap: getattr(w.budget, mishap) - 1})


def _outdated(w: World) -> World:
    """What was read before this write has another hash than the config by now."""

    def older(read: Config) -> Config:
        return read if read == NOTHING else read._replace(outdated=True)

    return w._replace(
        writers=tuple(each._replace(read=older(each.read)) for each in w.writers),
        wire=tuple(frame._replace(base=older(frame.base)) for frame in w.wire),
    )


def _swap(wire: tuple[Frame, ...], frame: Frame, *others: Frame) -> tuple[Frame, ...]:
    at = wire.index(frame)
    return (*wire[:at], *others, *wire[at + 1 :])


def _unheard(wire: tuple[Frame, ...], sender: int) -> tuple[Frame, ...]:
    return tuple(frame._replace(awaited=False) if frame.sender == sender else frame for frame in wire)


def _answered(w: World, frame: Frame, at: Any) -> World:
    """The frame is dealt with; where its sender waits, it goes on from ``at``."""
    w = w._replace(wire=_swap(w.wire, frame))
    if not frame.awaited or frame.sender == OUTSIDER:
        return w
    writer = Writer() if at == "idle" else w.writers[frame.sender]._replace(at=at)
    return _with(w, frame.sender, writer)
