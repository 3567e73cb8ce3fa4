"""The right to write a roster: one holder, and none that lost it writes again (decisions.md D1)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, Row

from tests.integration.agents.fleet import execute, one
from worker.roster.lease import RosterLeaseLostError, roster_lease

LEASE_S = 10.0


def state(engine: Engine, gateway_id: UUID) -> Row[Any]:
    return one(
        engine,
        "SELECT *, extract(epoch FROM writer_not_before - now())::float AS again_in_s,"
        " extract(epoch FROM restart_expected_at - now())::float AS restart_in_s"
        " FROM provisioner.gateway_states WHERE gateway_id = :id",
        id=gateway_id,
    )


def free(engine: Engine, gateway_id: UUID) -> bool:
    with roster_lease(engine, gateway_id, LEASE_S) as lease:
        return lease is not None


def test_of_many_writers_at_once_one_holds_the_roster(engine: Engine) -> None:
    gateway_id = uuid4()
    together, done = Barrier(8), Barrier(8)

    def race(_: int) -> bool:
        together.wait()
        with roster_lease(engine, gateway_id, LEASE_S) as lease:
            done.wait()
            return lease is not None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == [False] * 7 + [True]
    assert free(engine, gateway_id)


def test_other_gateways_are_free_meanwhile(engine: Engine) -> None:
    with roster_lease(engine, uuid4(), LEASE_S) as lease:
        assert lease is not None
        assert free(engine, uuid4())


def test_a_dead_holder_is_followed_by_another_when_its_lease_has_run_out(engine: Engine) -> None:
    gateway_id = uuid4()
    with roster_lease(engine, gateway_id, LEASE_S):
        assert not free(engine, gateway_id)
        execute(engine, "UPDATE provisioner.gateway_states SET writer_until = now() - interval '1 ms'")
        assert free(engine, gateway_id)


def test_a_holder_that_was_followed_must_not_write_and_takes_nothing_away_when_it_ends(
    engine: Engine,
) -> None:
    gateway_id = uuid4()
    with roster_lease(engine, gateway_id, LEASE_S) as late:
        assert late is not None
        execute(engine, "UPDATE provisioner.gateway_states SET writer_until = now() - interval '1 ms'")
        with roster_lease(engine, gateway_id, LEASE_S) as lease:
            assert lease is not None
            for write in (late.about_to_write, lambda _: late.renew()):
                with pytest.raises(RosterLeaseLostError):
                    write(0.0)
            late.release()
            lease.about_to_write(0.0)
            assert not free(engine, gateway_id)


def test_a_lease_that_ran_out_is_no_right_to_write_even_where_nobody_followed(engine: Engine) -> None:
    gateway_id = uuid4()
    with roster_lease(engine, gateway_id, LEASE_S) as lease:
        assert lease is not None
        execute(engine, "UPDATE provisioner.gateway_states SET writer_until = now() - interval '1 ms'")
        with pytest.raises(RosterLeaseLostError):
            lease.about_to_write(0.0)


def test_a_living_holder_keeps_its_lease(engine: Engine) -> None:
    gateway_id = uuid4()
    with roster_lease(engine, gateway_id, 0.3):
        first = state(engine, gateway_id).writer_until
        deadline = time.monotonic() + 10
        while state(engine, gateway_id).writer_until <= first + timedelta(seconds=0.6):
            assert not free(engine, gateway_id)
            assert time.monotonic() < deadline


def test_a_write_notes_the_restart_that_it_may_cause(engine: Engine) -> None:
    gateway_id = uuid4()
    with roster_lease(engine, gateway_id, LEASE_S) as lease:
        assert lease is not None
        lease.about_to_write(300.0)
        assert 240 < state(engine, gateway_id).restart_in_s <= 300


@pytest.mark.parametrize("rate_limited", [False, True])
def test_a_holder_that_asks_to_be_called_later_keeps_others_out_until_then(
    engine: Engine, rate_limited: bool
) -> None:
    gateway_id = uuid4()
    with roster_lease(engine, gateway_id, LEASE_S) as lease:
        assert lease is not None
        lease.again_in_s, lease.rate_limited = 300.0, rate_limited
    row = state(engine, gateway_id)
    assert row.writer_owner is None
    assert 240 < row.again_in_s <= 300
    assert (row.rate_limited_until is not None) == rate_limited
    assert not free(engine, gateway_id)
    execute(
        engine,
        "UPDATE provisioner.gateway_states SET writer_not_before = now() - interval '1 ms',"
        " rate_limited_until = rate_limited_until - interval '301 s'",
    )
    assert free(engine, gateway_id)
