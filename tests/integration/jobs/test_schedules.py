"""Each due sync once, whoever looks (decisions.md D9)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from tests.integration.agents.fleet import NOWHERE, Fleet, execute, one, seed_fleet
from worker.beat import EVERY_S
from worker.jobs.requests import RollOut, SyncGateway
from worker.jobs.schedule_firing import fire_due
from worker.jobs.schedule_spec import SPREAD_S, ScheduleSpec
from worker.jobs.schedules import Schedule, add, all_schedules, remove
from worker.jobs.store.jobs import Enqueued, enqueue
from worker.jobs.store.roll_outs import start_roll_out

HOURLY = ScheduleSpec(every=timedelta(hours=1))


@pytest.fixture
def fleet(engine: Engine) -> Fleet:
    return seed_fleet(engine)


def schedule(engine: Engine, fleet: Fleet, spec: ScheduleSpec = HOURLY, **options: Any) -> UUID:
    with engine.begin() as connection:
        return add(connection, SyncGateway(gateway_id=fleet.gateway_id, **options), spec).id


def make_due(engine: Engine, seconds_ago: float = 0) -> None:
    execute(
        engine,
        "UPDATE provisioner.sync_schedules SET next_run_at = now() - make_interval(secs => :s)",
        s=seconds_ago,
    )


def jobs(engine: Engine) -> int:
    return int(one(engine, "SELECT count(*) FROM provisioner.jobs")[0])


def seen(engine: Engine) -> Schedule:
    with engine.connect() as connection:
        (found,) = all_schedules(connection)
    return found


def test_a_due_schedule_makes_one_job_with_its_options(engine: Engine, fleet: Fleet) -> None:
    key = schedule(engine, fleet, include_main=False, rotate_tokens=True)
    assert fire_due(engine) == 0
    make_due(engine)
    assert (fire_due(engine), fire_due(engine)) == (1, 0)
    job = one(engine, "SELECT * FROM provisioner.jobs")
    assert (job.kind, job.status, job.gateway_id) == ("sync_gateway", "queued", fleet.gateway_id)
    assert (job.options["include_main"], job.options["rotate_tokens"]) == (False, True)
    assert job.requested_by == "schedule"
    assert job.request_id.startswith(f"schedule:{key}:")
    found = seen(engine)
    assert (found.last_job_id, found.last_status, found.note) == (job.id, "queued", None)
    assert found.next_run_at is not None


def test_a_schedule_with_a_canary_rolls_out_and_syncs_while_a_roll_out_is_open(
    engine: Engine, fleet: Fleet
) -> None:
    with engine.begin() as connection:
        add(connection, RollOut(gateway_id=fleet.gateway_id, canary="5%", max_failed=2), HOURLY)
    make_due(engine)
    assert fire_due(engine) == 1
    job = one(engine, "SELECT * FROM provisioner.jobs")
    assert (job.kind, job.options["canary"], job.options["max_failed"]) == ("roll_out", "5%", 2)
    with engine.begin() as connection:
        request = RollOut(gateway_id=fleet.gateway_id, canary="5%")
        start_roll_out(connection, job.id, request, None, [fleet.gateway_id])
    make_due(engine)
    assert fire_due(engine) == 1
    newest = one(
        engine,
        "SELECT kind, options FROM provisioner.jobs WHERE requested_by = 'schedule' AND kind <> 'roll_out'",
    )
    assert newest.kind == "sync_gateway"
    assert "canary" not in newest.options
    assert seen(engine).note is None


def test_many_who_look_at_once_make_one_job(engine: Engine, fleet: Fleet) -> None:
    for _ in range(5):
        schedule(engine, fleet)
    make_due(engine)
    with ThreadPoolExecutor(8) as pool:
        made = sum(pool.map(lambda _: fire_due(engine), range(16)))
    assert (made, jobs(engine)) == (5, 5)


def test_runs_that_were_missed_are_made_once(engine: Engine, fleet: Fleet) -> None:
    schedule(engine, fleet)
    make_due(engine, seconds_ago=10 * 24 * 3600)
    assert (fire_due(engine), fire_due(engine)) == (1, 0)


def test_the_same_due_run_found_again_after_a_crash_is_the_same_job(engine: Engine, fleet: Fleet) -> None:
    schedule(engine, fleet)
    make_due(engine)
    before = one(engine, "SELECT next_run_at FROM provisioner.sync_schedules").next_run_at
    fire_due(engine)
    end_all(engine)
    execute(engine, "UPDATE provisioner.sync_schedules SET next_run_at = :at", at=before)
    assert (fire_due(engine), jobs(engine)) == (0, 1)


def test_a_run_whose_predecessor_still_runs_is_skipped_and_said_so(engine: Engine, fleet: Fleet) -> None:
    schedule(engine, fleet)
    make_due(engine)
    fire_due(engine)
    first = seen(engine).last_job_id
    make_due(engine)
    assert (fire_due(engine), jobs(engine)) == (0, 1)
    found = seen(engine)
    assert found.note is not None
    assert f"job {first} of the last run still runs" in found.note
    assert one(engine, "SELECT next_run_at > now() FROM provisioner.sync_schedules")[0]
    end_all(engine)
    make_due(engine)
    assert (fire_due(engine), seen(engine).note) == (1, None)


def insert(engine: Engine, name: str, fleet: Fleet, **columns: str) -> None:
    """A row as it is, as somebody else may write it; ``name`` is its note."""
    values = {"gateway_id": str(fleet.gateway_id), "note": name, **columns}
    execute(
        engine,
        f"INSERT INTO provisioner.sync_schedules (id, {', '.join(values)})"
        f" VALUES (gen_random_uuid(), {', '.join(map(_hole, values))})",
        **values,
    )


def _hole(column: str) -> str:
    kinds = {"gateway_id": "uuid", "options": "jsonb", "every": "interval", "next_run_at": "timestamptz"}
    return f"CAST(:{column} AS {kinds.get(column, 'text')})"


def test_a_row_by_a_service_begins_with_its_first_due_run_and_a_wrong_one_is_switched_off(
    engine: Engine, fleet: Fleet
) -> None:
    nightly = {"cron": "0 3 * * *"}
    wrong = {
        "'at night'": {"cron": "at night"},
        "no gateway with gateway_id": {**nightly, "gateway_id": str(uuid4())},
        "include_main must be": {**nightly, "options": '{"include_main": "perhaps"}'},
        "knows no include_mane": {**nightly, "options": '{"include_mane": true}'},
    }
    insert(engine, "good", fleet, **nightly)
    for name, columns in wrong.items():
        insert(engine, name, fleet, **columns)
    assert fire_due(engine) == 0
    with engine.connect() as connection:
        found = all_schedules(connection)
    (good,) = [s for s in found if s.enabled]
    assert good.next_run_at is not None
    notes = [str(s.note) for s in found if not s.enabled]
    assert all(note.startswith("Switched off: ") for note in notes)
    assert len(notes) == len(wrong)
    assert [sign for sign in wrong if sign not in " ".join(notes)] == []
    with engine.begin() as connection:
        assert remove(connection, good.id)
        assert not remove(connection, good.id)


@pytest.mark.parametrize(
    ("columns", "sign"),
    [
        ({"cron": "0 0 30 2 *"}, "never comes"),
        ({"every": "170000000 years"}, "too seldom"),
        ({"every": "infinity"}, "too seldom"),
        ({"every": "-1 day"}, "too often"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Base"}, "'Mars/Base'"),
        ({"cron": "0 3 * * *", "options": "[1]"}, "knows no options"),
        ({"cron": "0 3 * * *", "options": '{"x": ' + "9" * 5000 + "}"}, "options cannot be read"),
    ],
)
def test_a_due_row_that_cannot_be_followed_stops_no_other(
    engine: Engine, fleet: Fleet, columns: dict[str, str], sign: str
) -> None:
    insert(engine, "wrong", fleet, next_run_at="2026-01-01", **columns)
    good = schedule(engine, fleet)
    make_due(engine)
    assert (fire_due(engine), fire_due(engine)) == (1, 0)
    with engine.connect() as connection:
        by_id = {s.id: s for s in all_schedules(connection)}
    assert by_id.pop(good).last_status == "queued"
    [wrong] = by_id.values()
    assert sign in str(wrong.note)
    assert not wrong.enabled


def test_a_row_that_meets_a_fault_of_our_own_stops_no_other(
    engine: Engine, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, good = schedule(engine, fleet), schedule(engine, fleet)
    make_due(engine)

    def faulty(connection: Connection, request: SyncGateway) -> Enqueued:
        if str(broken) in str(request.request_id):
            connection.execute(text("SELECT 1 / 0"))
        return enqueue(connection, request)

    monkeypatch.setattr("worker.jobs.schedule_firing.enqueue", faulty)
    assert (fire_due(engine), fire_due(engine)) == (1, 0)
    with engine.connect() as connection:
        by_id = {s.id: s for s in all_schedules(connection)}
    assert (by_id[good].last_status, by_id[good].enabled) == ("queued", True)
    assert (by_id[broken].last_status, by_id[broken].enabled) == (None, False)
    assert str(by_id[broken].note).startswith("Switched off: Internal error (DataError)")


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_a_row_whose_next_run_is_no_moment_is_listed_and_begins_anew_or_never(
    engine: Engine, fleet: Fleet, moment: str
) -> None:
    insert(engine, "endless", fleet, every="1 hour", next_run_at=moment)
    assert fire_due(engine) == 0
    assert (seen(engine).next_run_at is None) == (moment == "infinity")


@pytest.fixture
def clock(engine: Engine) -> Iterator[Engine]:
    """The same database with a clock of its own, which is as far ahead as ``clock.ahead`` says."""
    execute(engine, "CREATE SCHEMA clock")
    execute(engine, "CREATE TABLE clock.ahead AS SELECT interval '0' AS ahead")
    execute(engine, _CLOCK)
    shifted = create_engine(engine.url)
    event.listen(shifted, "connect", lambda raw, _: raw.execute(_ITS_CLOCK_FIRST) and raw.commit())
    yield shifted
    shifted.dispose()
    execute(engine, "DROP SCHEMA clock CASCADE")


_CLOCK = """
    CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.now() + ahead FROM clock.ahead'
"""
_ITS_CLOCK_FIRST = "SET search_path = clock, pg_catalog, public"


def set_clock(engine: Engine, ahead: timedelta) -> None:
    execute(engine, "UPDATE clock.ahead SET ahead = :ahead", ahead=ahead)


def test_postgres_decides_what_is_due_and_a_clock_that_jumps_repeats_nothing(
    engine: Engine, clock: Engine, fleet: Fleet
) -> None:
    schedule(engine, fleet)
    assert fire_due(clock) == 0
    set_clock(engine, timedelta(hours=5))
    assert (fire_due(clock), fire_due(clock)) == (1, 0)
    end_all(engine)
    for ahead in (timedelta(0), timedelta(hours=-5), timedelta(hours=5)):
        set_clock(engine, ahead)
        assert fire_due(clock) == 0, "that run is made, and the next is an hour on"
    set_clock(engine, timedelta(hours=6))
    assert fire_due(clock) == 1


def test_a_hundred_gateways_of_one_hour_are_spread_over_the_looks_of_five_minutes(
    engine: Engine, clock: Engine, fleet: Fleet
) -> None:
    hour = (datetime.now(UTC).hour + 12) % 24  # at the hour itself, some of its runs would be a day on
    nightly = ScheduleSpec(cron=f"0 {hour} * * *")
    with engine.begin() as connection:
        for n in range(100):
            key = fleet.add_gateway(f"Gateway {n:02}", NOWHERE)
            add(connection, SyncGateway(gateway_id=key), nightly)
    first = one(engine, "SELECT min(next_run_at) - now() AS wait FROM provisioner.sync_schedules").wait
    looks = []
    for n in range(int(SPREAD_S / EVERY_S) + 1):
        set_clock(engine, first + n * timedelta(seconds=EVERY_S))
        looks.append(fire_due(clock))
    assert sum(looks) == jobs(engine) == 100
    assert max(looks) < 15
    assert len([made for made in looks if made]) > 15


def end_all(engine: Engine) -> None:
    execute(engine, "UPDATE provisioner.jobs SET status = 'succeeded', next_attempt_at = NULL")
