"""Computes whether a gateway's sync windows are open, and when they open next (rules.md 55). Pure.

A window begins whenever its cron expression fires and lasts for a time that is counted in elapsed seconds, so
that a change of the clocks makes it neither longer nor shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Literal
from zoneinfo import ZoneInfo

from worker.jobs.requests import BadRequestError
from worker.jobs.schedule_spec import fires_after, require_cron, require_timezone

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=31)
HORIZON = timedelta(days=366)
"""Windows that are not open at any moment within this time count as windows that never open."""
_ANY_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

Effect = Literal["allow", "deny"]


class NeverOpensError(BadRequestError):
    """The windows of a gateway are open at no moment within `HORIZON`."""


@dataclass(frozen=True)
class SyncWindow:
    """A time that returns, in which changes of a gateway may happen (``allow``) or may not (``deny``).

    ``duration``: how long it lasts from each time at which ``cron`` fires in the IANA ``timezone``;
    ``everything``: it also counts for deletes, first provisions and rotations that somebody asked for.
    """

    effect: Effect
    cron: str
    duration: timedelta
    timezone: str = "UTC"
    everything: bool = False

    def check(self) -> None:
        """Raise BadRequestError if the window is unusable; the sentence names the field."""
        require_timezone(self.timezone)
        require_cron(self.cron)
        if not self.cron.split()[0].isdecimal():
            raise BadRequestError(
                f"cron: {self.cron!r} begins more than once an hour: give a window one minute, as in"
                " '0 22 * * 5', and a duration."
            )
        self.next_start(_ANY_MOMENT)
        if not SHORTEST <= self.duration <= LONGEST:
            raise BadRequestError(
                f"duration: {self.duration} is too {'short' if self.duration < SHORTEST else 'long'}:"
                " a window lasts from a minute to 31 days."
            )

    def end_at(self, moment: datetime) -> datetime | None:
        """When the window ends that is on at ``moment``, the last one if several overlap; None if none is."""
        fires = fires_after(self.cron, self.timezone, moment - self.duration)
        begun = list(takewhile(lambda fire: fire <= moment, fires))
        return begun[-1] + self.duration if begun else None

    def next_start(self, moment: datetime) -> datetime:
        """When it begins for the first time after ``moment``."""
        return next(fires_after(self.cron, self.timezone, moment))


def counting(windows: Sequence[SyncWindow], *, asked: bool) -> list[SyncWindow]:
    """Those of the windows that count for a change. ``asked``: it is a delete, a first provision or a
    rotation that somebody asked for."""
    return [window for window in windows if window.everything or not asked]


def opens_at(windows: Sequence[SyncWindow], moment: datetime) -> datetime | None:
    """When the windows are next open, in UTC; None if they are open at ``moment``.

    They are closed while a ``deny`` window is on and, if there is an ``allow`` window at all, while none of
    those is on. Raises NeverOpensError.
    """
    allow = [window for window in windows if window.effect == "allow"]
    deny = [window for window in windows if window.effect == "deny"]
    at = moment
    while at <= moment + HORIZON:
        denied_until = [end for window in deny if (end := window.end_at(at)) is not None]
        if denied_until:
            at = max(denied_until)
        elif allow and all(window.end_at(at) is None for window in allow):
            at = min(window.next_start(at) for window in allow)
        else:
            return None if at == moment else at
    raise NeverOpensError(_never(allow, deny))


def closes_at(windows: Sequence[SyncWindow], moment: datetime) -> datetime | None:
    """When windows that are open at ``moment`` close, as far as the next step tells: one that begins as
    another ends keeps them open. None if they stay open."""
    ends = [end for window in windows if window.effect == "allow" and (end := window.end_at(moment))]
    starts = [window.next_start(moment) for window in windows if window.effect == "deny"]
    return min([max(ends), *starts] if ends else starts, default=None)


def require_openings(windows: Sequence[SyncWindow], moment: datetime) -> None:
    """Raise NeverOpensError unless the windows are open at some time, for every change that they concern."""
    opens_at(windows, moment)
    opens_at(counting(windows, asked=True), moment)


def local(moment: datetime, windows: Sequence[SyncWindow]) -> str:
    """The moment in the timezone of the windows, or in UTC if they have several: for people."""
    zones = {window.timezone for window in windows}
    zone = zones.pop() if len(zones) == 1 else "UTC"
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"


def _never(allow: Sequence[SyncWindow], deny: Sequence[SyncWindow]) -> str:
    if not allow:
        return "The windows that deny leave no minute within a year: make one of them shorter."
    if not deny:
        return "The windows that allow do not begin within a year: give one a cron expression that comes."
    return (
        "The windows never open: at every time within a year at which one allows changes, another denies"
        " them. Move or shorten one of them."
    )
