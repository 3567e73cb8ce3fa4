"""When a gateway's sync windows are open (rules.md 55)."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.jobs.requests import BadRequestError
from worker.jobs.schedule_spec import ScheduleSpec
from worker.jobs.sync_windows import (
    HORIZON,
    Effect,
    NeverOpensError,
    SyncWindow,
    closes_at,
    opens_at,
    require_openings,
)

BERLIN = ZoneInfo("Europe/Berlin")
UUID_OF_A_LATE_ONE = UUID(int=299)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC")
AROUND_CHANGES = (
    date(2026, 3, 28),
    date(2026, 10, 24),
    date(2026, 3, 7),
    date(2026, 10, 31),
    date(2026, 4, 4),
)


def berlin(day: str, at: str) -> datetime:
    return datetime.fromisoformat(f"{day}T{at}").replace(tzinfo=BERLIN)


def window(
    effect: Effect, cron: str, minutes: int, zone: str = "Europe/Berlin", *, everything: bool = False
) -> SyncWindow:
    return SyncWindow(effect, cron, timedelta(minutes=minutes), zone, everything)


NIGHT = window("allow", "0 2 * * *", 90)


def test_without_windows_it_is_open() -> None:
    assert opens_at([], datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_allowed_is_open_inside_and_closed_outside() -> None:
    assert opens_at([NIGHT], berlin("2026-01-10", "02:00")) is None
    assert opens_at([NIGHT], berlin("2026-01-10", "03:29")) is None
    for moment in ("03:30", "12:00"):
        assert opens_at([NIGHT], berlin("2026-01-10", moment)) == berlin("2026-01-11", "02:00")


def test_denied_counts_more_than_allowed() -> None:
    freeze = window("deny", "0 0 20 12 *", 10 * 24 * 60)
    assert opens_at([NIGHT, freeze], berlin("2026-12-21", "02:30")) == berlin("2026-12-30", "02:00")
    assert opens_at([freeze], berlin("2026-12-21", "02:30")) == berlin("2026-12-30", "00:00")
    assert opens_at([freeze], berlin("2026-12-30", "00:00")) is None
    assert closes_at([NIGHT, freeze], berlin("2026-12-19", "02:30")) == berlin("2026-12-19", "03:30")


def test_a_window_is_open_again_when_one_that_denies_ends_within_it() -> None:
    noisy = window("deny", "0 1 * * *", 120)
    assert opens_at([NIGHT, noisy], berlin("2026-01-10", "02:30")) == berlin("2026-01-10", "03:00")


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        # 02:30 does not exist: the window begins with the first minute that does, and lasts as long as ever.
        ("2026-03-29", "2026-03-29T01:00+00:00", "2026-03-29T04:00+00:00"),
        # 02:30 comes twice: it begins once, the first time, and ends after three hours that have passed.
        ("2026-10-25", "2026-10-25T00:30+00:00", "2026-10-25T03:30+00:00"),
    ],
)
def test_a_change_of_the_clocks_makes_a_window_neither_longer_nor_shorter(
    day: str, opens: str, closes: str
) -> None:
    nightly = window("allow", "30 2 * * *", 180)
    moment = opens_at([nightly], berlin(day, "00:30"))
    assert moment == datetime.fromisoformat(opens)
    assert closes_at([nightly], moment) == datetime.fromisoformat(closes)
    assert opens_at([nightly], datetime.fromisoformat(closes) - timedelta(seconds=1)) is None
    after = opens_at([nightly], datetime.fromisoformat(closes))
    assert after is not None
    assert after.astimezone(BERLIN).time() == time(2, 30)
    assert after.astimezone(BERLIN).date() == date.fromisoformat(day) + timedelta(days=1)


def test_a_schedule_finds_its_window_open_in_every_night_of_a_year() -> None:
    schedule = ScheduleSpec(cron="30 2 * * *", timezone="Europe/Berlin")
    nightly = window("allow", "30 2 * * *", 15)
    moment, nights = datetime(2026, 1, 1, tzinfo=UTC), set()
    for _ in range(365):
        moment = schedule.after(moment, UUID_OF_A_LATE_ONE)
        assert opens_at([nightly], moment) is None, moment
        nights.add(moment.astimezone(BERLIN).date())
    assert len(nights) == 365


def minutes_of(spec: SyncWindow, hour: int, minute: int, first: date, days: int) -> set[datetime]:
    """Each minute of these days in which a daily window is on, counted in another way: local times, by the
    clock on the wall."""
    zone, found = ZoneInfo(spec.timezone), set()
    for day in range(-8, days + 1):
        local = datetime.combine(first + timedelta(days=day), time(hour, minute), zone)
        began = local.astimezone(UTC)
        while began.astimezone(zone).replace(tzinfo=None, fold=0) != local.replace(tzinfo=None):
            # The clocks skip it: the first minute after the gap.
            before = began - timedelta(minutes=1)
            if before.astimezone(zone).utcoffset() != began.astimezone(zone).utcoffset():
                break
            began = before
        for passed in range(int(spec.duration.total_seconds() // 60)):
            found.add(began + timedelta(minutes=passed))
    return found


DAILY = st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(1, 26 * 60))


@settings(max_examples=30)
@given(st.lists(DAILY, max_size=2), st.lists(DAILY, max_size=2), st.sampled_from(ZONES), st.data())
def test_open_is_what_the_clock_on_the_wall_says(
    allow: list[tuple[int, int, int]], deny: list[tuple[int, int, int]], zone: str, data: st.DataObject
) -> None:
    first = data.draw(st.sampled_from(AROUND_CHANGES))
    given_windows: list[tuple[Effect, tuple[int, int, int]]] = [("allow", each) for each in allow]
    given_windows += [("deny", each) for each in deny]
    made = [
        (window(effect, f"{minute} {hour} * * *", minutes, zone), hour, minute)
        for effect, (hour, minute, minutes) in given_windows
    ]
    windows = [each for each, _, _ in made]
    on = {index: minutes_of(each, hour, minute, first, 3) for index, (each, hour, minute) in enumerate(made)}
    start = datetime.combine(first, time(), UTC)
    at = start + timedelta(minutes=data.draw(st.integers(0, 2 * 24 * 60)))

    def is_open(moment: datetime) -> bool:
        denied = any(moment in on[i] for i, each in enumerate(windows) if each.effect == "deny")
        allows = [moment in on[i] for i, each in enumerate(windows) if each.effect == "allow"]
        return not denied and (any(allows) or not allows)

    try:
        found = opens_at(windows, at)
    except NeverOpensError:
        assert not any(is_open(at + timedelta(minutes=passed)) for passed in range(12 * 60))
        return
    if found is None:
        assert is_open(at)
        return
    assert at < found <= at + HORIZON
    end = start + timedelta(days=3)
    closed = [at + timedelta(minutes=m) for m in range(int((min(found, end) - at).total_seconds() // 60))]
    assert not any(is_open(moment) for moment in closed)
    assert found >= end or is_open(found)


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        ([window("deny", "0 * * * *", 60)], "leave no minute within a year"),
        ([window("allow", "0 2 * * *", 60), window("deny", "0 1 * * *", 180)], "another denies"),
        ([window("allow", "0 0 29 2 *", 60)], "do not begin within a year"),
        (
            [window("allow", "0 2 * * *", 60), window("deny", "0 * * * *", 60, everything=True)],
            "another denies",
        ),
    ],
)
def test_windows_that_never_open_are_refused(windows: list[SyncWindow], said: str) -> None:
    with pytest.raises(NeverOpensError, match=said):
        require_openings(windows, datetime(2026, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cron": "0 2 * *"}, "no cron expression of five fields"),
        ({"cron": "0 2 30 2 *"}, "never comes"),
        ({"cron": "*/5 2 * * *"}, "more than once an hour"),
        ({"timezone": "Europe/Bonn"}, "timezone: there is none of the name 'Europe/Bonn'"),
        ({"duration": timedelta(seconds=30)}, "too short"),
        ({"duration": timedelta(days=32)}, "too long"),
    ],
)
def test_an_unusable_window_is_refused_with_its_field(fields: dict[str, object], said: str) -> None:
    usable: dict[str, object] = {"effect": "allow", "cron": "0 2 * * *", "duration": timedelta(hours=1)}
    SyncWindow(**usable).check()  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match=said):
        SyncWindow(**usable | fields).check()  # type: ignore[arg-type]
