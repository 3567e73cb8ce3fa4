"""When a schedule is due next."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.requests import BadRequestError
from worker.jobs.schedule_spec import SPREAD_S, ScheduleSpec

PROMPT = UUID(int=0)
"""A schedule that is never late."""
BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = ScheduleSpec(cron="30 2 * * *", timezone="Europe/Berlin")


def test_three_at_night_is_three_at_night_where_the_schedule_says() -> None:
    berlin = ScheduleSpec(cron="0 3 * * *", timezone="Europe/Berlin")
    winter = berlin.after(datetime(2026, 1, 10, 12, tzinfo=UTC), PROMPT)
    summer = berlin.after(datetime(2026, 7, 10, 12, tzinfo=UTC), PROMPT)
    assert (winter, summer) == (
        datetime(2026, 1, 11, 2, tzinfo=UTC),
        datetime(2026, 7, 11, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("around", [datetime(2026, 3, 26, tzinfo=UTC), datetime(2026, 10, 22, tzinfo=UTC)])
def test_a_night_in_which_the_clocks_change_has_one_run(around: datetime) -> None:
    moment, runs = around, []
    while (moment := NIGHTLY.after(moment, PROMPT)) < around + timedelta(days=7):
        runs.append(moment.astimezone(BERLIN))
    assert len({run.date() for run in runs}) == len(runs) == 7


def test_a_hundred_schedules_of_one_hour_begin_at_moments_of_their_own_within_five_minutes() -> None:
    spec, noon = ScheduleSpec(cron="0 3 * * *"), datetime(2026, 1, 1, 12, tzinfo=UTC)
    runs = [spec.after(noon, uuid4()) for _ in range(100)]
    assert Counter(runs).most_common(1)[0][1] < 8
    late = [(run - datetime(2026, 1, 2, 3, tzinfo=UTC)).total_seconds() for run in runs]
    assert 0 <= min(late) < max(late) < SPREAD_S


SPECS = st.sampled_from(
    [
        ScheduleSpec(cron="0 0 29 2 *"),
        ScheduleSpec(every=timedelta(minutes=1)),
        ScheduleSpec(every=timedelta(hours=6)),
        ScheduleSpec(cron="*/5 * * * *"),
        ScheduleSpec(cron="0 3 * * 1-5", timezone="America/New_York"),
        NIGHTLY,
    ]
)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))


@given(SPECS, MOMENTS, st.uuids())
def test_the_next_run_is_later_and_the_same_whenever_it_is_asked_for_before(
    spec: ScheduleSpec, moment: datetime, key: UUID
) -> None:
    due = spec.after(moment, key)
    assert due > moment
    between = moment + (due - moment) * 0.7
    assert spec.after(between, key) == due
    assert spec.after(due, key) > due


@pytest.mark.parametrize(
    ("spec", "sign"),
    [
        (ScheduleSpec(), "either an interval or a cron expression"),
        (ScheduleSpec(timedelta(hours=1), "0 3 * * *"), "either an interval or a cron expression"),
        (ScheduleSpec(timedelta(seconds=59)), "at most once a minute"),
        (ScheduleSpec(timedelta(days=367)), "at least once a year"),
        (ScheduleSpec(cron="0 0 30 2 *"), "'0 0 30 2 *' never comes"),
        (ScheduleSpec(cron="0 25 * * *"), "'0 25 * * *' is no cron expression"),
        (ScheduleSpec(cron="* * * * * *"), "five fields"),
        (ScheduleSpec(cron="0 3 * * *", timezone="Europe/Nowhere"), "'Europe/Nowhere'"),
        (ScheduleSpec(cron="0 3 * * *", timezone="../etc/passwd"), "there is none of the name"),
    ],
)
def test_what_cannot_be_is_refused_by_name(spec: ScheduleSpec, sign: str) -> None:
    with pytest.raises(BadRequestError, match=sign.replace("*", r"\*")):
        spec.check()
