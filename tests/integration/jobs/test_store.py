"""Claims, leases and generations: one worker at a row, one job at an agent, nothing written too late."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event

from tests.integration.agents.fleet import execute, insert_job, job, job_agent, seed_fleet
from worker.jobs.intake import Accepted, Refused, accept_agent_job
from worker.jobs.lease_renewal import lease_renewed
from worker.jobs.outbox import publish_due
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.job_agents import (
    Claim,
    advance,
    claim,
    finish,
    park,
    renew,
)
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.jobs.store.releasing import mark_next_in_line
from worker.jobs.store.wake_batches import Woken, end_woken, gather_wakes
from worker.runtime.services import Services

LEASE_S = 5.0
KIND = "provision_agent"


def accept(engine: Engine, agent_id: UUID, task_id: str | None = None, **arguments: Any) -> UUID:
    """A message by ``send_task`` comes in; the job that it made."""
    given = {"agent_id": str(agent_id), **arguments}
    accepted = accept_agent_job(engine, KIND, task_id or str(uuid4()), (), given)
    assert isinstance(accepted, Accepted)
    return accepted.job_id


def take(engine: Engine, job_id: UUID, agent_id: UUID) -> Claim:
    held = claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S)
    assert isinstance(held, Claim)
    return held


def end(engine: Engine, held: Claim, status: str = "succeeded", reason: str | None = None) -> None:
    with engine.begin() as connection:
        finish(connection, held, status, reason=reason, result={"ok": True}, warnings=["w"], files={})


def run_out(engine: Engine, job_id: UUID) -> None:
    """The lease ran out a second ago, and the clock has published the row again."""
    execute(
        engine,
        "UPDATE provisioner.job_agents SET lease_until = now() - interval '1 s',"
        " next_attempt_at = now() - interval '1 s' WHERE job_id = :id",
        id=job_id,
    )
    assert publish_due(engine, lambda *_: None) >= 1


def test_a_claim_takes_the_row_and_a_copy_of_the_message_finds_nothing_to_do(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    assert (held.generation, held.crashes, held.phase, held.single) == (1, 0, None, True)
    assert held.options["wake"] is True
    assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    row = job_agent(engine, job_id)
    assert (row.status, row.generation, row.crashes, row.published_at) == ("running", 1, 0, None)


def test_a_row_is_not_claimed_for_a_job_of_another_kind(engine: Engine) -> None:
    """As a hand-made message for tasks.sync_agent would: its handler would do another job's work."""
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    assert claim(engine, job_id, agent_id, "sync_gateway", lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    assert job_agent(engine, job_id).generation == 0
    assert take(engine, job_id, agent_id).single


def test_of_many_workers_that_claim_at_once_one_gets_the_row(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    together = Barrier(12)

    def race(_: int) -> Claim | NotClaimed:
        together.wait()
        return claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S)

    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(race, range(12)))
    assert [type(o) for o in outcomes].count(Claim) == 1
    assert outcomes.count(NotClaimed.NOTHING_TO_DO) == 11
    assert job_agent(engine, job_id).generation == 1


def test_what_a_worker_writes_after_another_has_taken_over_is_rejected(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    late = take(engine, job_id, agent_id)
    run_out(engine, job_id)
    held = take(engine, job_id, agent_id)
    assert (held.generation, held.crashes) == (2, 1)
    with engine.begin() as connection:
        with pytest.raises(LeaseLostError):
            advance(connection, late, "files", lease_s=LEASE_S)
        with pytest.raises(LeaseLostError):
            park(connection, late, 1, "late")
        with pytest.raises(LeaseLostError):
            finish(connection, late, "failed", reason="late", warnings=[], files={})
    assert job(engine, job_id).status == "running"
    end(engine, held)
    assert (job(engine, job_id).status, job_agent(engine, job_id).status) == ("succeeded", "succeeded")


def test_a_worker_whose_lease_ran_out_unnoticed_may_still_end_its_row(engine: Engine) -> None:
    """Nobody has taken over yet: what it did is done, and thrown away it would be done again."""
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    execute(engine, "UPDATE provisioner.job_agents SET lease_until = now() - interval '1 min'")
    end(engine, held)
    assert job(engine, job_id).status == "succeeded"


def test_advancing_renews_the_lease_and_keeps_what_was_learned_first(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    execute(engine, "UPDATE provisioner.job_agents SET lease_until = now() + interval '1 s'")
    with engine.begin() as connection:
        advance(connection, held, "intent", lease_s=60, status_before="offline", wake_key="k1")
        advance(connection, held, "wake", lease_s=60, status_before="provisioning", wake_key="k2")
    row = job_agent(engine, job_id)
    assert (row.phase, row.status_before, row.wake_key) == ("wake", "offline", "k1")
    assert row.lease_until == row.next_attempt_at
    assert (row.lease_until - row.started_at).total_seconds() > 50


def test_a_parked_row_keeps_its_agent_and_drops_messages_until_it_is_due(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    with engine.begin() as connection:
        park(connection, held, 60, "waiting for the roster writer", "roster")
    assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    assert publish_due(engine, lambda *_: None) == 0
    row = job_agent(engine, job_id)
    assert (row.status, row.phase, row.reason) == ("running", "roster", "waiting for the roster writer")
    other = accept(engine, agent_id)
    assert claim(engine, other, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.AGENT_BUSY


def test_a_row_whose_job_is_cancelled_while_it_is_leased_is_due_once_it_parks(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    with engine.begin() as connection:
        assert cancel(connection, job_id) is False
    with engine.begin() as connection:
        park(connection, held, 60, "waiting for the roster writer", "roster")
    assert publish_due(engine, lambda *_: None) == 1
    assert take(engine, job_id, agent_id).cancel_requested


def test_a_cancelled_job_whose_message_finds_its_agent_busy_ends_at_once(engine: Engine) -> None:
    """Cancelled while nobody held the agent; by the time that its message comes, another job does."""
    agent_id = seed_fleet(engine).agent_id
    first, second = accept(engine, agent_id), accept(engine, agent_id)
    with engine.begin() as connection:
        assert cancel(connection, second) is False
    take(engine, first, agent_id)
    assert claim(engine, second, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.AGENT_BUSY
    row, ended = job_agent(engine, second), job(engine, second)
    assert (row.status, row.reason, row.next_attempt_at) == ("cancelled", "Cancelled on request.", None)
    assert (ended.status, ended.reason_code, ended.agents_done) == ("cancelled", "cancelled", 1)
    assert job(engine, first).status == "running"


def test_a_row_that_was_gathered_for_a_wake_is_cancelled_once_its_gatherer_has_died(engine: Engine) -> None:
    fleet = seed_fleet(engine)
    job_id = accept(engine, fleet.agent_id)
    held = take(engine, job_id, fleet.agent_id)
    stored = {"label": "Ada", "params": {"sessionKey": "k"}, "result": {}}
    with engine.begin() as connection:
        advance(connection, held, "wake", lease_s=LEASE_S, wake=stored)
        park(connection, held, 60, "waiting until the other agents have their files")
        assert [each.label for each in gather_wakes(connection, fleet.gateway_id)] == ["Ada"]
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE job_id = :id", id=job_id)
    assert publish_due(engine, lambda *_: None) == 1
    again = take(engine, job_id, fleet.agent_id)
    assert again.wake_sent_at is not None
    with engine.begin() as connection:
        woken = [Woken(str(job_id), str(fleet.agent_id), {})]
        park(connection, again, 60, "the gateway did not say whether the message arrived")
        assert end_woken(connection, woken) == [], "the row was taken out of the batch"
        assert cancel(connection, job_id) is False
    assert publish_due(engine, lambda *_: None) == 1


def test_a_planned_wait_is_no_crash(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    for round_ in range(1, 4):
        held = take(engine, job_id, agent_id)
        assert (held.generation, held.crashes) == (round_, 0)
        with engine.begin() as connection:
            park(connection, held, 0, "later")
        assert publish_due(engine, lambda *_: None) == 1


def test_a_claim_that_ended_without_a_word_is_counted(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    for crashes in range(4):
        assert take(engine, job_id, agent_id).crashes == crashes
        row = job_agent(engine, job_id)
        assert (row.attempts, row.crashes) == (crashes, crashes)
        run_out(engine, job_id)


def test_a_failed_try_is_counted_in_the_row_and_known_to_the_next_claim(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    for tries, phase in enumerate(("files", "credentials", None)):
        held = take(engine, job_id, agent_id)
        assert held.tries == tries
        with engine.begin() as connection:
            park(connection, held, 0, "no answer", phase, failed=True)
        publish_due(engine, lambda *_: None)
    row = job_agent(engine, job_id)
    assert (row.tries, row.crashes, row.attempts) == (3, 0, 0)


@pytest.mark.parametrize("status", ["succeeded", "failed", "skipped", "cancelled"])
def test_an_ended_row_drops_messages_and_lets_the_agent_go(engine: Engine, status: str) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    end(engine, held, status, "because")
    assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    assert accept_agent_job(engine, KIND, str(job_id), (), {"agent_id": str(agent_id)}) == Accepted(
        job_id, agent_id
    )
    assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    ended = job(engine, job_id)
    assert ended.status == {"skipped": "failed"}.get(status, status)
    assert (ended.agents_total, ended.agents_done, ended.warnings) == (1, 1, ["w"])
    assert ended.error == (None if status == "succeeded" else "because")
    assert ended.finished_at is not None
    assert publish_due(engine, lambda *_: None) == 0
    take(engine, accept(engine, agent_id), agent_id)


def test_one_job_at_a_time_has_an_agent_and_the_other_comes_back_in_some_seconds(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    first, second = accept(engine, agent_id), accept(engine, agent_id)
    held = take(engine, first, agent_id)
    assert claim(engine, second, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.AGENT_BUSY
    row = job_agent(engine, second)
    assert (row.status, row.crashes, row.generation, row.started_at) == ("pending", 0, 0, None)
    assert row.reason == "waiting for another job on this agent"
    wait = execute(
        engine,
        "SELECT 1 FROM provisioner.job_agents WHERE job_id = :id AND published_at IS NULL"
        " AND next_attempt_at BETWEEN now() + interval '4 s' AND now() + interval '5 s'",
        id=second,
    )
    assert wait == 1
    end(engine, held)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE job_id = :id", id=second)
    assert publish_due(engine, lambda *_: None) == 1
    assert take(engine, second, agent_id).crashes == 0


def test_an_agent_that_became_free_while_a_job_was_turned_away_is_tried_again_at_once(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    first, second = accept(engine, agent_id), accept(engine, agent_id)
    held = take(engine, first, agent_id)
    meanwhile: list[object] = []

    def end_meanwhile(context: object) -> None:
        meanwhile.append(context)
        end(engine, held)

    event.listen(engine, "handle_error", end_meanwhile)
    try:
        assert claim(engine, second, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.AGENT_BUSY
    finally:
        event.remove(engine, "handle_error", end_meanwhile)
    assert len(meanwhile) == 1
    assert publish_due(engine, lambda *_: None) == 1
    take(engine, second, agent_id)


def test_the_next_in_line_is_the_oldest_that_was_turned_away(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    first, *waiting = (accept(engine, agent_id) for _ in range(4))
    held = take(engine, first, agent_id)
    for job_id in reversed(waiting[:2]):
        assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.AGENT_BUSY
    end(engine, held)
    called = [next_in_line(engine, agent_id) for _ in range(3)]
    assert called == [[waiting[0]], [waiting[1]], []]  # the last one's first message is still on its way
    assert publish_due(engine, lambda *_: None) == 0
    take(engine, waiting[0], agent_id)


def next_in_line(engine: Engine, agent_id: UUID) -> list[UUID | None]:
    with engine.begin() as connection:
        return [message.job_id for message in mark_next_in_line(connection, agent_id)]


def test_many_jobs_on_one_agent_never_hold_it_together(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    jobs = [accept(engine, agent_id) for _ in range(10)]
    together = Barrier(10)

    def race(job_id: UUID) -> Claim | NotClaimed:
        together.wait()
        return claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S)

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(race, jobs))
    assert [type(o) for o in outcomes].count(Claim) == 1
    assert outcomes.count(NotClaimed.AGENT_BUSY) == 9


def test_a_claim_outlives_its_lease_while_its_worker_lives(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = claim(engine, job_id, agent_id, KIND, lease_s=0.3)
    assert isinstance(held, Claim)
    first = job_agent(engine, job_id).lease_until

    def keep() -> None:
        with engine.begin() as connection:
            renew(connection, held, lease_s=0.3)

    with lease_renewed(keep, 0.3, "the agent"):
        deadline = time.monotonic() + 10
        while (row := job_agent(engine, job_id)).lease_until <= first + timedelta(seconds=0.6):
            assert publish_due(engine, lambda *_: None) == 0
            assert time.monotonic() < deadline
    assert (row.generation, row.crashes) == (1, 0)
    assert row.next_attempt_at == row.lease_until


def test_a_message_that_was_sent_just_before_the_lease_was_renewed_is_dropped(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    run_out(engine, job_id)
    with engine.begin() as connection:
        renew(connection, held, lease_s=LEASE_S)
    assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    end(engine, held)
    assert job(engine, job_id).status == "succeeded"


def test_a_row_that_was_let_go_is_not_taken_back_by_the_renewal_of_its_lease(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    with engine.begin() as connection:
        renew(connection, held, lease_s=9)
        park(connection, held, 60, "later")
    parked = job_agent(engine, job_id)
    with engine.begin() as connection, pytest.raises(LeaseLostError):
        renew(connection, held, lease_s=9)
    assert job_agent(engine, job_id) == parked


def test_a_terminal_job_never_reopens(hands: Any, engine: Engine) -> None:
    services: Services = hands()
    agent_id = seed_fleet(engine).agent_id
    job_id = insert_job(engine, agent_id, status="cancelled", error="by an operator")
    assert publish_due(services.engine, services.send) == 0
    accepted = accept_agent_job(engine, KIND, str(job_id), (), {"agent_id": str(agent_id)})
    assert accepted == Refused(job_id, None)
    assert claim(engine, job_id, agent_id, KIND, lease_s=LEASE_S) is NotClaimed.NOTHING_TO_DO
    assert job(engine, job_id).status == "cancelled"
