"""What the model of the roster writer's protocol is made of: a gateway's roster, frames on their way to it,
intents with the jobs that wait for them, writers, and the rules of one world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

ABSENT, STALE, RIGHT = 0, 1, 2
"""What the roster says of an agent: nothing, something else than its row, or what its row says."""
OWNERS = "owner"
"""The owner's own entry, which none of our intents is about; the outsider edits it, from STALE to RIGHT."""
OUTSIDER = 9

Roster = tuple[tuple[str, int], ...]
"""Entries by agent, sorted; who is ABSENT is not in it."""


class Config(NamedTuple):
    """What config.get shows. ``outdated``: it was read before a write that made the hash another, even if the
    roster is the same again: the old releases write down the time of each write."""

    roster: Roster
    outdated: bool = False

    def of(self, agent: str) -> int:
        """What it says of the agent."""
        return dict(self.roster).get(agent, ABSENT)

    def having(self, changes: Roster) -> Roster:
        """The roster with the changes laid over it."""
        merged = {**dict(self.roster), **dict(changes)}
        return tuple(sorted((agent, value) for agent, value in merged.items() if value != ABSENT))


class Frame(NamedTuple):
    """A config write on its way to the gateway or inside it. ``base``: what its sender had read; ``begun``:
    what a racing gateway read when it began to carry it out; ``awaited``: its sender waits for the answer."""

    sender: int
    kind: Literal["config.patch", "agents.delete", "edit"]
    base: Config
    changes: Roster
    begun: Config | None = None
    awaited: bool = True


class Writer(NamedTuple):
    """``at``: how far it has come in `write_roster`; ``batch``: the intents it took; ``refused``: those of
    them that it will refuse; ``read``: what it read of the gateway last; ``undone``: agents whose entry an
    outsider's racing write has put back since."""

    at: Literal["idle", "look", "write", "send", "sent", "restart", "settle"] = "idle"
    batch: tuple[int, ...] = ()
    refused: frozenset[int] = frozenset()
    read: Config = Config(())
    undone: frozenset[str] = frozenset()


class Intent(NamedTuple):
    """``status``: what became of it; ``job``: where the job is that recorded it; ``present_before``: what
    `note_present` kept."""

    status: Literal["unwanted", "open", "applied", "refused"] = "unwanted"
    job: Literal["before", "parked", "looking", "parking", "published", "ended"] = "before"
    present_before: bool | None = None


class Budget(NamedTuple):
    """How often each mishap may still happen."""

    crashes: int = 1
    losses: int = 1
    edits: int = 1
    restarts: int = 1
    limits: int = 1


ONCE_EACH = Budget()


class World(NamedTuple):
    """One state. ``rows``: agents that have their row; ``lease``: the writer that holds it; ``wire``: frames
    not carried out yet; ``restart_due``: of a patch; ``limited``: rate_limited_until has not come, nor
    ``not_before`` writer_not_before;
    ``rolled_back``: agents whose entry an outsider's racing write has put back."""

    config: Config
    rows: frozenset[str]
    intents: tuple[Intent, ...]
    writers: tuple[Writer, ...]
    budget: Budget
    lease: int | None = None
    wire: tuple[Frame, ...] = ()
    restart_due: bool = False
    limited: bool = False
    not_before: bool = False
    rolled_back: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RosterChange:
    """An intent that some job will record, once the jobs of the intents numbered ``after`` have ended.
    ``ends_row``: the job deletes the agent's row at its end, as `delete_job` does."""

    agent: str
    change: Literal["reconcile", "remove"] = "reconcile"
    only_present: bool = False
    after: tuple[int, ...] = ()
    ends_row: bool = False

    def __str__(self) -> str:
        what = "heartbeat of" if self.only_present else "delete" if self.change == "remove" else "provision"
        return f"{what} {self.agent}"


@dataclass(frozen=True)
class Rules:
    """What the gateway is like, what time may do, and which of our precautions are taken.

    ``races``: config writes at once are all told ok and the last to land wins; such a gateway restarts after
    each patch (up to 2026.3). ``overlaps``: the outsider's edit may meet a write of ours in such a gateway.
    ``outlives``: a frame may be on its way still when its sender's lease has ended. ``dispatcher_visits``:
    the dispatcher publishes parked rows that nothing made due. ``checks_lease``: `about_to_write` is asked.
    ``bound``: a frame leaves only within the lease that `about_to_write` renewed. ``reads_back``: after an
    ok, the roster is read before it counts. ``settles_under_lease``: how intents ended is written down only
    by who holds the lease. ``parks_locked``: a job looks at its intents and parks in one transaction that has
    them locked.
    """

    races: bool
    overlaps: bool = True
    outlives: bool = False
    dispatcher_visits: bool = False
    checks_lease: bool = True
    bound: bool = True
    reads_back: bool = True
    settles_under_lease: bool = True
    parks_locked: bool = True
    budget: Budget = ONCE_EACH
