"""The life of jobs about one agent as a machine: each step is one database transaction, or one thing that
happens to a message, a worker or the clock, and has the name of the code that does it.

Time is abstract: what is due later may be due at any moment, a lease may run out once its worker is stopped
or dead, and anybody may pause anywhere. The model begins where each job has its row for the agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.model.explorer import Step
from tests.model.job_world import IDLE, MOST_MESSAGES, Job, Mishaps, Row, Rules, Worker, World

Steps = Iterator[Step[World]]
TWO_HOLDERS = "two jobs hold the agent at once"
TAKEN = "a row is taken from a worker that holds it"
TAKEN_OVER = "a worker writes to a row that another one has taken over"
ENDED_TWICE = "a job that has ended is written to"
ENDED_UNDER = "a batch ends a row that a worker has claimed"
LOST = "a row counts as published, and there is no message"
LATE = "a job waits for an agent that nobody holds"
SLEPT_THROUGH = "a job waits for a settled intent"
CANCEL_SLEPT = "a job that is being cancelled waits"
WINDOW_SLEPT = "a job waits for a window that is open"
CUT_SHORT = "a job that waits for a window is published before it opens"
HELD_WHILE_WAITING = "a job that waits for a window holds the agent"
NOT_TOLD = "a job says that the agent was woken, and nobody has sent the message"


@dataclass(frozen=True)
class Life:
    """The steps that are possible in a state: one agent, its ``jobs`` in the order in which they were asked
    for, ``workers`` worker processes with a dispatcher each."""

    rules: Rules
    jobs: tuple[Job, ...]
    mishaps: Mishaps
    workers: int = 2

    def start(self) -> World:
        """All jobs are due, no message was sent, and the window is closed."""
        none = (0,) * len(self.jobs)
        return World((Row(),) * len(self.jobs), (IDLE,) * self.workers, none, none, self.mishaps)

    def steps(self, w: World) -> Steps:
        """All that may happen next, with the worker that does it called by no name: which of them it is makes
        no difference."""
        for name, after, broken in self._all(w):
            workers = tuple(sorted(after.workers))
            after = after._replace(workers=workers)
            yield Step(name, after, broken or self._neglected(after))

    def _all(self, w: World) -> Steps:
        for n in range(len(self.jobs)):
            yield from self._messages(w, n)
            yield from self._time(w, n)
            yield from self._others(w, n)
        for me, worker in enumerate(w.workers):
            if worker != IDLE:
                yield from self._worker(w, me)
            elif me == 0 or w.workers[me - 1] != IDLE:
                yield from self._take(w, me)
        if any(job.window for job in self.jobs) and not w.window_open:
            yield Step("set windows, make_window_waits_due", self._open_window(w))

    # --- messages: mark_due, send_marked, unmark -------------------------------------------------------

    def _messages(self, w: World, n: int) -> Steps:
        row = w.rows[n]
        if row.timer == "due" and row.status != "ended" and (self.rules.rescues or row.lease == "none"):
            expires: Any = "later" if self.rules.marks_expire else "none"
            yield Step(f"mark_due: {n}", _marked(w, n, row._replace(timer=expires)))
        if w.unsent[n]:
            kept = w._replace(unsent=_plus(w.unsent, n, -1))
            yield Step(f"send: {n}", kept._replace(queue=_plus(w.queue, n, 1)))
            if w.left.refusals:
                failed = _less(kept, "refusals")
                if self.rules.unmarks and row.published:
                    failed = _row(failed, n, row._replace(published=False, timer="due"))
                yield Step(f"send fails, unmark: {n}", failed)
            if w.left.crashes:
                yield Step(f"a process dies before it sends: {n}", _lossy(kept, "crashes"))
        if w.queue[n] and w.left.losses:
            yield Step(f"the broker loses: {n}", _lossy(w._replace(queue=_plus(w.queue, n, -1)), "losses"))
        if w.queue[n] and w.left.doubles:
            yield Step(f"the broker doubles: {n}", _less(w._replace(queue=_plus(w.queue, n, 1)), "doubles"))

    def _time(self, w: World, n: int) -> Steps:
        row = w.rows[n]
        if row.lease != "live" and row.timer == "later":
            due = _row(w, n, row._replace(timer="due"))
            if not (w.unsent[n] or w.queue[n]):
                yield Step(f"time: {n} is due", due)
            elif w.left.doubles:
                yield Step(f"time: {n} is due, and its message waits", _less(due, "doubles"))
        if row.lease == "live":
            over = _row(w, n, row._replace(lease="over", timer="due"))
            if not any(each.holds and each.row == n for each in w.workers):
                yield Step(f"the lease of a dead worker runs out: {n}", over)
            elif w.left.pauses:
                yield Step(f"a worker pauses, and its lease runs out: {n}", _less(over, "pauses"))

    def _others(self, w: World, n: int) -> Steps:
        """The roster writer, and the user."""
        row = w.rows[n]
        if row.intent == "open":
            settled = _row(w, n, row._replace(intent="settled"))
            waits = row.status == "running" and row.lease == "none" and row.phase == "roster"
            if waits and self.rules.settling_marks:
                settled = _marked(settled, n, settled.rows[n]._replace(timer="later"))
            yield Step(f"_settle, mark_waiting_for: {n}", settled)
        if w.left.cancels and row.status != "ended" and not row.cancelled:
            yield Step(f"cancel: {n}", self._cancel(_less(w, "cancels"), n))

    def _cancel(self, w: World, n: int) -> World:
        row = w.rows[n]
        withdrawn = row._replace(cancelled=True, intent="settled" if row.intent == "open" else row.intent)
        if row.status == "pending" and any(each.status == "running" for each in w.rows):
            return _row(w, n, _ended(withdrawn))
        parked = row.lease == "none" and not row.published and row.timer != "none"
        if parked and not (row.wake and row.sent) and self.rules.cancel_makes_due:
            withdrawn = withdrawn._replace(timer="due")
        return _row(w, n, withdrawn)

    def _open_window(self, w: World) -> World:
        def looks_again(row: Row) -> Row:
            waits = row.status == "pending" and row.why == "window" and not row.published
            return row._replace(timer="due") if waits and self.rules.windows_make_due else row

        return w._replace(window_open=True, rows=tuple(map(looks_again, w.rows)))

    # --- an idle worker takes a message, or gathers a wake ----------------------------------------------

    def _take(self, w: World, me: int) -> Steps:
        for n, row in enumerate(w.rows):
            if w.queue[n]:
                yield self._claim(w._replace(queue=_plus(w.queue, n, -1)), me, n)
            waits = row.status == "running" and row.phase == "wake" and row.wake and not row.sent
            if waits and row.lease == "none" and not row.published and not row.cancelled:
                gathered = row._replace(sent=True, timer="later", why="batch")
                yield Step(f"gather_wakes: {n}", _row(_at(w, me, Worker("batch", n)), n, gathered))

    def _claim(self, w: World, me: int, n: int) -> Step[World]:
        row, name = w.rows[n], f"claim: {n}"
        free = row.lease != "live" or not self.rules.claim_compares_lease
        if row.status == "ended" or not (row.published or not self.rules.claim_compares_lease) or not free:
            return Step(f"{name}: nothing to do", w)
        others = [each for m, each in enumerate(w.rows) if m != n and each.status == "running"]
        if others and row.status == "pending" and self.rules.one_running_row:
            return Step(f"{name}: the agent is busy", _at(w, me, Worker("busy", n)))
        broken = TWO_HOLDERS if others else TAKEN if row.lease == "live" else None
        workers = tuple(each._replace(holds=False) if each.row == n else each for each in w.workers)
        wake = row.wake and not self.rules.claim_takes_wake
        claimed = row._replace(
            status="running", lease="live", published=False, timer="later", why="", wake=wake
        )
        held = Worker("work", n, holds=True, saw=row.cancelled)
        return Step(name, _row(_at(w._replace(workers=workers), me, held), n, claimed), broken)

    # --- a worker at work: execute_agent_row, step by step -----------------------------------------------

    def _worker(self, w: World, me: int) -> Steps:
        worker = w.workers[me]
        n, row = worker.row, w.rows[worker.row]
        if w.left.crashes:
            yield Step(f"a worker dies: {n}", _lossy(_at(w, me, IDLE), "crashes"))
        match worker.at:
            case "busy":
                yield from self._read_then_write(w, me, "busy")
            case "writing":
                yield self._write(w, me, worker)
            case "ended":
                yield self._mark_next(w, me)
            case "batch":
                yield Step(f"_send_batch: {n}", _row(_at(w, me, Worker("told", n)), n, _told(row)))
                if w.left.refusals:
                    yield self._give_back(_less(w, "refusals"), me, n)
            case "told":
                yield self._end_woken(w, me, n)
            case "work" | "sending" if not worker.holds and self.rules.generation:
                yield Step(f"a write is rejected: {n}", _at(w, me, IDLE))
            case "work" | "sending":
                if row.lease == "over" and worker.holds:
                    yield Step(f"renew: {n}", _row(w, n, row._replace(lease="live", timer="later")))
                yield from self._work(w, me, worker, row)

    def _work(self, w: World, me: int, worker: Worker, row: Row) -> Steps:
        n, job = worker.row, self.jobs[worker.row]
        if worker.at == "sending":
            yield from self._send_wake(w, me, n)
        elif worker.saw:
            yield self._finish(w, me, n, "finish as cancelled")
        elif row.phase == "start" and job.window and not w.window_open:
            yield from self._read_then_write(w, me, "window")
        elif row.phase == "start" and job.roster:
            parked = row._replace(phase="roster", intent="open", why="roster")
            yield self._park(w, me, n, parked, "record_intents, park")
        elif row.phase == "roster" and row.intent == "open":
            yield self._park(w, me, n, row._replace(why="roster"), "intent_states, park")
        elif row.phase in ("start", "roster"):
            yield self._advance(w, n, row._replace(phase="files"), "advance to files")
        elif row.phase == "files":
            if job.retries:
                yield from self._read_then_write(w, me, "retry")
            if job.wakes:
                yield from self._enter_wake(w, me, row)
            else:
                yield self._finish(w, me, n, "finish")
        elif row.sent:
            if job.retries:
                yield from self._read_then_write(w, me, "retry")
            if row.told or not self.rules.sees_arrival:
                yield self._finish(w, me, n, "_arrived_before, finish")
            else:
                yield Step(f"_arrived_before: {n}, not yet", _at(w, me, worker._replace(at="sending")))
        else:
            yield from self._enter_wake(w, me, row)

    def _enter_wake(self, w: World, me: int, row: Row) -> Steps:
        worker = w.workers[me]
        yield from self._read_then_write(w, me, "others")
        marked = self._advance(
            w, worker.row, row._replace(phase="wake", sent=True, wake=False), "mark as sent"
        )
        yield marked._replace(after=_at(marked.after, me, worker._replace(at="sending")))

    def _send_wake(self, w: World, me: int, n: int) -> Steps:
        row = w.rows[n]
        if row.told:
            yield self._finish(w, me, n, "finish")
            return
        yield Step(f"chat.send: {n}", _row(w, n, _told(row)))
        if w.left.refusals:
            unsent = self._advance(_less(w, "refusals"), n, row._replace(sent=False), "_mark_unsent")
            yield unsent._replace(after=_at(unsent.after, me, w.workers[me]._replace(at="work")))

    def _read_then_write(self, w: World, me: int, writes: Any) -> Steps:
        """One statement, or two steps of it if it can be torn apart."""
        worker = w.workers[me]._replace(at="writing", writes=writes, saw=self._seen(w, me, writes))
        if self.rules.torn:
            yield Step(f"{_NAMES[writes]} reads: {worker.row}", _at(w, me, worker))
        else:
            yield self._write(w, me, worker)

    def _seen(self, w: World, me: int, writes: str) -> bool:
        n = w.workers[me].row
        if writes == "busy":
            return any(each.status == "running" for each in w.rows)
        return w.rows[n].cancelled

    def _write(self, w: World, me: int, worker: Worker) -> Step[World]:
        """The write of a statement that has read ``worker.saw``."""
        n, row = worker.row, w.rows[worker.row]
        if worker.writes == "busy":
            waits = row._replace(published=False, why="busy", timer="later" if worker.saw else "due")
            if row.cancelled and worker.saw and self.rules.busy_reads_cancel:
                waits = _ended(row)
            after = _row(w, n, waits) if row.status == "pending" else w
            return Step(f"{_NAMES['busy']}: {n}", _at(after, me, IDLE))
        if not worker.holds and self.rules.generation:
            return Step(f"a write is rejected: {n}", _at(w, me, IDLE))
        if worker.writes == "window":
            return self._set_back(w, me, worker)
        why: Any = worker.writes
        if worker.writes == "others":
            row = row._replace(phase="wake", wake=True)
        return self._park(w, me, n, row._replace(why=why), f"park, {why}", worker.saw)

    def _set_back(self, w: World, me: int, worker: Worker) -> Step[World]:
        n, row = worker.row, w.rows[worker.row]
        frees = self.rules.set_back_frees
        back = row._replace(
            status="pending" if frees else row.status,
            lease="none",
            published=False,
            why="window",
            timer="due" if worker.saw or (w.window_open and self.rules.window_lock) else "later",
        )
        after = _row(_at(w, me, IDLE), n, back)
        if self.rules.next_in_line:  # in the same transaction
            after = self._next_in_line(after)
        broken = self._stale(worker, row) or (None if frees else HELD_WHILE_WAITING)
        cut = after.rows[n].published
        return Step(f"set_back, mark_next_in_line: {n}", after, broken or (CUT_SHORT if cut else None))

    def _park(
        self, w: World, me: int, n: int, row: Row, name: str, cancelled: bool | None = None
    ) -> Step[World]:
        reads = self.rules.park_reads_cancel
        at_once = reads and (row.cancelled if cancelled is None else cancelled)
        parked = row._replace(lease="none", published=False, timer="due" if at_once else "later")
        return Step(f"{name}: {n}", _row(_at(w, me, IDLE), n, parked), self._stale(w.workers[me], w.rows[n]))

    def _advance(self, w: World, n: int, row: Row, name: str) -> Step[World]:
        return Step(f"{name}: {n}", _row(w, n, row._replace(lease="live", timer="later")))

    def _finish(self, w: World, me: int, n: int, name: str) -> Step[World]:
        row = w.rows[n]
        broken = self._stale(w.workers[me], row)
        if row.phase == "wake" and row.sent and not row.told and name != "finish as cancelled":
            broken = broken or NOT_TOLD
        return Step(f"{name}: {n}", _row(_at(w, me, Worker("ended", n)), n, _ended(row)), broken)

    def _stale(self, worker: Worker, row: Row) -> str | None:
        if row.status == "ended":
            return ENDED_TWICE
        return None if worker.holds else TAKEN_OVER

    def _mark_next(self, w: World, me: int) -> Step[World]:
        after = _at(w, me, IDLE)
        return Step("mark_next_in_line", self._next_in_line(after) if self.rules.next_in_line else after)

    def _next_in_line(self, w: World) -> World:
        for n, row in enumerate(w.rows):
            waits = row.status == "pending" and not row.published and row.timer != "none"
            if waits and (row.why != "window" or self.rules.window_waits_in_line):
                return _marked(w, n, row._replace(timer="later"))
        return w

    # --- the batch in which another agent's job wakes this one ------------------------------------------

    def _in_hand(self, row: Row) -> bool:
        free = row.lease == "none" or not self.rules.batch_compares_lease
        return row.status == "running" and row.phase == "wake" and row.wake and free

    def _end_woken(self, w: World, me: int, n: int) -> Step[World]:
        row = w.rows[n]
        if not self._in_hand(row):
            return Step(f"end_woken: {n} is not in hand", _at(w, me, IDLE))
        broken = ENDED_UNDER if row.lease != "none" else None
        return Step(f"end_woken: {n}", _row(_at(w, me, Worker("ended", n)), n, _ended(row)), broken)

    def _give_back(self, w: World, me: int, n: int) -> Step[World]:
        row, after = w.rows[n], _at(w, me, IDLE)
        if not self._in_hand(row):
            return Step(f"give_back: {n} is not in hand", after)
        unsent = row._replace(wake=False, sent=False, timer="later", why="")
        return Step(
            f"give_back: {n}", _marked(after, n, unsent), ENDED_UNDER if row.lease != "none" else None
        )

    # --- what must not be ---------------------------------------------------------------------------------

    def _neglected(self, w: World) -> str | None:
        """What a row waits for that nothing keeps; of those that no worker has leased."""
        sleeping = [n for n, row in enumerate(w.rows) if row.lease == "none" and row.timer == "later"]
        for n in sleeping:
            row = w.rows[n]
            if not row.published and (broken := self._overslept(w, row)):
                return broken
        if w.excused:
            return None
        for n in sleeping:
            row = w.rows[n]
            if row.published and not self._is_on_its_way(w, n):
                return LOST
            if not row.published and row.why == "busy" and not self._is_held(w):
                return LATE
        return None

    def _overslept(self, w: World, row: Row) -> str | None:
        if row.cancelled and row.why != "batch":
            return CANCEL_SLEPT
        if row.why == "window" and w.window_open:
            return WINDOW_SLEPT
        return SLEPT_THROUGH if row.why == "roster" and row.intent == "settled" else None

    def _is_on_its_way(self, w: World, n: int) -> bool:
        in_hand = any(each.row == n and each.at in ("busy", "writing") for each in w.workers)
        return bool(w.unsent[n] or w.queue[n]) or in_hand

    def _is_held(self, w: World) -> bool:
        """Whether a job holds the agent, or is about to, or its end is about to be passed on."""
        begins = any(row.status == "running" or row.published or row.timer == "due" for row in _open(w))
        return begins or any(each.at == "ended" for each in w.workers)


_NAMES = {
    "busy": "postpone",
    "window": "set_back",
    "retry": "park, retry",
    "others": "park, others",
}


def all_ended(w: World) -> bool:
    """Every job has ended, and nobody is at work."""
    return not _open(w)


def _open(w: World) -> list[Row]:
    return [row for row in w.rows if row.status != "ended"]


def _row(w: World, n: int, row: Row) -> World:
    return w._replace(rows=(*w.rows[:n], row, *w.rows[n + 1 :]))


def _at(w: World, me: int, worker: Worker) -> World:
    return w._replace(workers=(*w.workers[:me], worker, *w.workers[me + 1 :]))


def _marked(w: World, n: int, row: Row) -> World:
    """The row is published: a message is to be sent after the commit."""
    return _row(w, n, row._replace(published=True))._replace(unsent=_plus(w.unsent, n, 1))


def _ended(row: Row) -> Row:
    """An ended row; how it was reached no longer matters to anybody."""
    return Row(status="ended", timer="none", told=row.told)


def _told(row: Row) -> Row:
    return row._replace(told=True)


def _plus(counts: tuple[int, ...], n: int, more: int) -> tuple[int, ...]:
    return (*counts[:n], min(MOST_MESSAGES, counts[n] + more), *counts[n + 1 :])


def _lossy(w: World, mishap: str) -> World:
    """What a process or a message takes with it is due again by the clock alone, from now on."""
    return _less(w, mishap)._replace(excused=True)


def _less(w: World, mishap: str) -> World:
    return w._replace(left=w.left.less(mishap))
