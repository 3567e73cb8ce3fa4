"""What the model of a job's life is made of: the rows of one agent's jobs, messages, worker processes, and
the rules of one world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

MOST_MESSAGES = 2
"""How many messages about one row are told apart on the broker: two workers can handle no more at once."""


class Row(NamedTuple):
    """The row of the agent in one job. ``timer``: when it is due (``next_attempt_at``); ``lease``: over means
    that its time has passed; ``why``: what it waits for; ``intent``: that of its roster change; ``wake``: its
    wake is stored for others to send; ``sent``: that is marked as sent; ``told``: the message went out."""

    status: Literal["pending", "running", "ended"] = "pending"
    phase: Literal["start", "roster", "files", "wake"] = "start"
    lease: Literal["none", "live", "over"] = "none"
    published: bool = False
    timer: Literal["none", "later", "due"] = "due"
    why: Literal["", "busy", "roster", "retry", "window", "others", "batch"] = ""
    cancelled: bool = False
    intent: Literal["none", "open", "settled"] = "none"
    wake: bool = False
    sent: bool = False
    told: bool = False


class Worker(NamedTuple):
    """``at``: what it is doing with the row numbered ``row``; ``holds``: its generation is the row's;
    ``saw``: what it read before it writes: of a claim, that the job is being cancelled.

    At ``busy`` it was told that another job holds the agent; at ``writing`` it has read what the statement
    ``writes`` depends on; at ``ended`` it has given the agent back, and not yet marked who is next in line;
    at ``batch`` it has gathered the row's wake for another agent's job, and at ``told`` sent it.
    """

    at: Literal["idle", "busy", "work", "sending", "writing", "ended", "batch", "told"] = "idle"
    row: int = 0
    holds: bool = False
    saw: bool = False
    writes: Literal["", "retry", "others", "window", "busy"] = ""


IDLE = Worker()


class Mishaps(NamedTuple):
    """How often each may still happen, and how often any of them but ``cancels``.

    ``crashes``: of a worker, or of a dispatcher between its commit and its message; ``losses``: of a message;
    ``doubles``: of one, or a row is due again before its message is taken; ``refusals``: the broker or the
    gateway cannot be reached; ``pauses``: a worker is stopped for longer than its lease; ``cancels``: a user
    asks for it."""

    crashes: int = 1
    losses: int = 1
    doubles: int = 1
    refusals: int = 1
    pauses: int = 1
    any: int = 2
    cancels: int = 1

    def less(self, mishap: str) -> Mishaps:
        """What is left after one of them. Where none may happen, it is not told which may not."""
        if mishap == "cancels":
            return self._replace(cancels=self.cancels - 1)
        left = self._replace(any=self.any - 1, **{mishap: getattr(self, mishap) - 1})
        return left if left.any else Mishaps(0, 0, 0, 0, 0, 0, self.cancels)


NO_MISHAPS = Mishaps(0, 0, 0, 0, 0, 0, 0)


class World(NamedTuple):
    """One state. ``unsent``: how many messages about each row are marked and not yet sent; ``queue``: how
    many are on the broker; ``window_open``: of the gateway's sync window; ``excused``: a process died, or a
    message was lost, so that some row may wait for its timer."""

    rows: tuple[Row, ...]
    workers: tuple[Worker, ...]
    unsent: tuple[int, ...]
    queue: tuple[int, ...]
    left: Mishaps
    window_open: bool = False
    excused: bool = False


@dataclass(frozen=True)
class Job:
    """What a job about the agent goes through. ``retries``: a step may fail and be tried again."""

    roster: bool = False
    window: bool = False
    wakes: bool = False
    retries: bool = False


@dataclass(frozen=True)
class Rules:
    """Which of our precautions are taken; ``torn``: another transaction may come between what a statement
    reads of other rows and its write, as READ COMMITTED allows.

    ``generation``: writes compare it; ``claim_compares_lease``: a claim leaves a leased row alone;
    ``one_running_row``: the index that lets one job at a time hold an agent; ``marks_expire``: a published
    row is due again; ``rescues``: the dispatcher publishes rows whose lease is over; ``unmarks``: what was
    not sent is due at once; ``next_in_line``: who gives an agent back marks the row that waits for it;
    ``window_waits_in_line``: rows that wait for a window count as waiting for the agent;
    ``busy_reads_cancel``: a row that finds its agent busy ends if its job is being cancelled;
    ``set_back_frees``: it gives the agent back; ``cancel_makes_due``: a cancel has parked rows end at once;
    ``park_reads_cancel``: a row that parks looks whether its job is being cancelled; ``settling_marks``: the
    roster writer marks the rows that wait for it; ``batch_compares_lease``: rows gathered for a batch are
    ended only if nobody has claimed them since; ``claim_takes_wake``: a claim takes a row out of its batch;
    ``windows_make_due``: a change of the windows has the rows look again; ``window_lock``: a row that is set
    back has looked at the windows in the same transaction, and kept them from changing; ``sees_arrival``:
    before a wake that counts as sent is sent again or ended, its arrival is looked up.
    """

    generation: bool = True
    claim_compares_lease: bool = True
    one_running_row: bool = True
    marks_expire: bool = True
    rescues: bool = True
    unmarks: bool = True
    next_in_line: bool = True
    window_waits_in_line: bool = False
    busy_reads_cancel: bool = True
    set_back_frees: bool = True
    cancel_makes_due: bool = True
    park_reads_cancel: bool = True
    settling_marks: bool = True
    batch_compares_lease: bool = True
    claim_takes_wake: bool = True
    windows_make_due: bool = True
    window_lock: bool = True
    sees_arrival: bool = True
    torn: bool = False
