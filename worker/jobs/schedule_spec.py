"""Computes when a schedule is due: at an interval, or by a cron expression in a timezone. Pure.

Cron expressions are read here for sync windows too (`worker.jobs.sync_windows`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, croniter

from worker.jobs.requests import BadRequestError

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=366)
SPREAD_S = 300
"""Cron schedules for the same time are spread over this many seconds. A schedule always has the same delay,
which is at most a tenth of its period."""
_ANY_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ScheduleSpec:
    """The times at which a schedule is due: either at an interval ``every``, or by a five-field ``cron``
    expression in an IANA ``timezone``."""

    every: timedelta | None = None
    cron: str | None = None
    timezone: str = "UTC"

    def check(self) -> None:
        """Raise BadRequestError if the schedule is unusable; the sentence names the field."""
        if (self.every is None) == (self.cron is None):
            raise BadRequestError("A schedule has either an interval or a cron expression.")
        if self.every is not None and self.every < SHORTEST:
            raise BadRequestError(f"every: {self.every} is too often: at most once a minute.")
        if self.every is not None and self.every > LONGEST:
            raise BadRequestError(f"every: {self.every} is too seldom: at least once a year.")
        require_timezone(self.timezone)
        if self.cron is not None:
            require_cron(self.cron)
            self._fires(_ANY_MOMENT, 1)

    def after(self, moment: datetime, schedule_id: UUID) -> datetime:
        """The first time after ``moment`` at which the schedule is due, in UTC.

        Each schedule has a fixed offset, derived from its id. Raises BadRequestError for a cron expression
        that never fires.
        """
        if self.every is not None:
            period_s = int(self.every.total_seconds())
            phase_s = schedule_id.int % period_s
            periods = (moment.timestamp() - phase_s) // period_s + 1
            return datetime.fromtimestamp(phase_s + periods * period_s, UTC)
        first, second = self._fires(moment - timedelta(days=1), 2)
        lateness = self._lateness(second - first, schedule_id)
        [fire] = self._fires(moment - lateness, 1)
        return fire + lateness

    def _fires(self, moment: datetime, count: int) -> list[datetime]:
        return list(islice(fires_after(str(self.cron), self.timezone, moment), count))

    @staticmethod
    def _lateness(period: timedelta, schedule_id: UUID) -> timedelta:
        spread_s = min(SPREAD_S, int(period.total_seconds()) // 10)
        return timedelta(seconds=schedule_id.int % spread_s)


def require_timezone(name: str) -> None:
    """Raise BadRequestError unless there is an IANA timezone of that name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadRequestError(
            f"timezone: there is none of the name {name!r}: write one like 'Europe/Berlin'."
        ) from None


def require_cron(expression: str) -> None:
    """Raise BadRequestError unless it is a cron expression of five fields."""
    if len(expression.split()) != 5 or not croniter.is_valid(expression):
        raise BadRequestError(
            f"cron: {expression!r} is no cron expression of five fields, like '0 3 * * *' for three at night."
        )


def fires_after(cron: str, timezone: str, moment: datetime) -> Iterator[datetime]:
    """The times after ``moment`` at which the cron expression fires, in UTC, without end.

    A time that the clocks skip comes when they have been put forward. In an hour that they repeat it fires
    the first time only, unless it fires every hour. Raises BadRequestError if it never fires.
    """
    zone = ZoneInfo(timezone)
    times = croniter(cron, moment.astimezone(zone))
    hourly = "*" in cron.split()[1]
    while True:
        try:
            fire = times.get_next(datetime).astimezone(UTC)
        except CroniterBadDateError:
            raise BadRequestError(f"cron: {cron!r} never comes: no month has that day.") from None
        if hourly or not fire.astimezone(zone).fold:
            yield fire
