"""RETRY_TIMEOUT_S counts from the first failure, tries included; an outage belongs to its address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.acceptance.proxy import Proxy
from tests.integration.agents.fleet import Fleet, execute, job, one, seed_fleet
from tests.integration.conftest import Sent
from tests.rows import execute_agent_row
from tests.silent_server import silent_server
from worker.gateway.idle_timeout import call_limits, note_failing_for, wait_within_limits, within_budget
from worker.jobs.intake import Queued, accept, accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.requests import SyncGateway
from worker.lab.simulator import Simulator
from worker.lab.simulator.faults import Drop, Fault, Kind, Silence, busy
from worker.roster.batch import RosterBatch
from worker.roster.intents import RosterChange, record_intents
from worker.roster.writer import write_roster
from worker.runtime.services import Services
from worker.sync.begin import begin as begin_sync
from worker.sync.execution import execute_sync

TOKEN = "the-gateways-own-token"
BUDGET_S = 2.0


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "gateway") as simulator:
        yield simulator


def begin(engine: Engine, fleet: Fleet, kind: str = "provision_agent") -> UUID:
    key = uuid4()
    accept_agent_job(engine, kind, str(key), (), {"agent_id": str(fleet.agent_id), "wake": False})
    return key


def drive(hand: Services, fleet: Fleet, job_id: UUID, sent: Sent, most_s: float = 20.0) -> float:
    """Serve the job as a worker does until it has ended; seconds that it took."""
    began = time.monotonic()
    execute_agent_row(hand, job_id, fleet.agent_id)
    while job(hand.engine, job_id).status == "running" and time.monotonic() - began < most_s:
        publish_due(hand.engine, sent)
        for task, _, _ in sent.take():
            if task == "tasks.write_roster":
                write_roster(hand, fleet.gateway_id)
            else:
                execute_agent_row(hand, job_id, fleet.agent_id)
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_gateway_that_accepts_and_never_answers_is_given_up_within_the_budget(
    hands: Callable[..., Services], engine: Engine, sent: Sent
) -> None:
    with silent_server() as url:
        fleet = seed_fleet(engine, url=url, token=TOKEN)
        hand = hands(retry_timeout_s=BUDGET_S, retry_inline_s=20)
        job_id = begin(engine, fleet)
        took_s = drive(hand, fleet, job_id, sent)
    ended = job(engine, job_id)
    assert ended.status == "failed"
    assert BUDGET_S <= took_s < BUDGET_S + 2
    assert "unreachable for 2 seconds. Last error: " in ended.error


@pytest.mark.parametrize("method", ["config.get", "agents.files.set"])
def test_one_that_falls_silent_after_its_greeting_is_given_up_within_the_budget(
    hands: Callable[..., Services], engine: Engine, sent: Sent, simulator: Simulator, method: str
) -> None:
    with Proxy(simulator.url) as proxy:
        fleet = seed_fleet(engine, url=proxy.url, token=TOKEN)
        hand = hands(retry_timeout_s=BUDGET_S, retry_inline_s=0)
        for _ in range(20):
            proxy.hold(lambda called, _: called == method)
        job_id = begin(engine, fleet)
        took_s = drive(hand, fleet, job_id, sent)
        hand.clients.close_all()
    ended = job(engine, job_id)
    assert ended.status == "failed"
    assert took_s < 2 * BUDGET_S + 2, ended.error
    assert "did not answer" in ended.error or "not written within" in ended.error


def test_an_intent_that_no_writer_settles_ends_with_the_budget_and_the_last_error(
    hands: Callable[..., Services], engine: Engine, sent: Sent, simulator: Simulator
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand = hands(retry_timeout_s=BUDGET_S, retry_inline_s=0)
    job_id = begin(engine, fleet)
    execute_agent_row(hand, job_id, fleet.agent_id)
    execute(
        engine,
        "UPDATE provisioner.gateway_states SET writer_not_before = now() + interval '1 hour',"
        " writer_queued_at = NULL, last_error = 'It was busy.'",
    )
    took_s = drive(hand, fleet, job_id, sent)
    assert (job(engine, job_id).status, took_s < BUDGET_S + 2) == ("failed", True)
    assert job(engine, job_id).error.endswith("within 2 seconds. Last error: It was busy.")
    assert job(engine, job_id).reason_code == "retries_exhausted"
    intent = one(engine, "SELECT reason_code FROM provisioner.roster_intents")
    assert intent.reason_code == "retries_exhausted"


def test_a_corrected_address_is_tried_at_once(
    hands: Callable[..., Services], engine: Engine, sent: Sent, simulator: Simulator
) -> None:
    fleet = seed_fleet(engine, url="ws://127.0.0.1:9", token=TOKEN)
    hand = hands(retry_timeout_s=600, retry_inline_s=0)
    first = begin(engine, fleet)
    execute_agent_row(hand, first, fleet.agent_id)
    execute(engine, "UPDATE provisioner.gateway_states SET probe_until = now() + interval '1 hour'")
    assert one(engine, "SELECT down_since FROM provisioner.gateway_states").down_since is not None
    execute(engine, "UPDATE gateways SET url = :url", url=simulator.url)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now()")
    assert drive(hand, fleet, first, sent) < 10
    assert job(engine, first).status == "succeeded"
    assert one(engine, "SELECT down_since FROM provisioner.gateway_states").down_since is None


def test_a_writer_that_cannot_even_refuse_does_not_come_back_each_second(
    hands: Callable[..., Services],
    engine: Engine,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)

    def broken(*_: Any, **__: Any) -> None:
        raise UnicodeError("whatever a gateway may say")

    with engine.begin() as connection:
        record_intents(
            connection, fleet.gateway_id, uuid4(), RosterChange(fleet.agent_id, f"mc-{fleet.agent_id}")
        )
    monkeypatch.setattr(RosterBatch, "refuse_absent", broken)
    monkeypatch.setattr("worker.roster.writer.refuse_intents", broken)
    for _ in range(3):
        write_roster(hands(), fleet.gateway_id)
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    later = one(engine, "SELECT writer_not_before > now() AS later FROM provisioner.gateway_states")
    assert later.later


def test_what_a_writer_stumbles_over_is_refused_in_our_own_words(
    hands: Callable[..., Services], engine: Engine, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)

    def broken(*_: Any, **__: Any) -> None:
        raise UnicodeError("a NUL: \x00")

    with engine.begin() as connection:
        record_intents(
            connection, fleet.gateway_id, uuid4(), RosterChange(fleet.agent_id, f"mc-{fleet.agent_id}")
        )
    monkeypatch.setattr(RosterBatch, "refuse_absent", broken)
    write_roster(hands(), fleet.gateway_id)
    refused = one(engine, "SELECT error, reason_code FROM provisioner.roster_intents")
    assert refused.error == "The roster writer failed with UnicodeError: see the worker's log."
    assert refused.reason_code == "internal_error"


def test_the_budget_counts_from_the_first_failure_and_not_from_the_beginning_of_the_job(
    hands: Callable[..., Services], engine: Engine, sent: Sent, simulator: Simulator
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand = hands(retry_timeout_s=600, retry_inline_s=0)
    simulator.faults.schedule(busy("agents.files.set", times=40))
    job_id = begin(engine, fleet)
    execute_agent_row(hand, job_id, fleet.agent_id)
    execute(engine, "UPDATE provisioner.job_agents SET started_at = now() - interval '1 hour'")
    publish_due(engine, sent)
    write_roster(hand, fleet.gateway_id)
    execute_agent_row(hand, job_id, fleet.agent_id)
    row = one(engine, "SELECT status, reason, failing_since FROM provisioner.job_agents")
    assert (row.status, row.failing_since is not None) == ("running", True), row.reason
    execute(
        engine, "UPDATE provisioner.job_agents SET failing_since = now() - interval '1 hour', phase = 'files'"
    )
    drive(hand, fleet, job_id, sent)
    assert job(engine, job_id).error.startswith("Given up after 600 seconds: ")


def test_a_call_may_take_all_that_is_left_of_the_budget() -> None:
    began = time.monotonic()
    with call_limits(budget_s=1.2):
        assert not wait_within_limits(threading.Event().wait, began + 30)
    assert 1.1 < time.monotonic() - began < 1.6


def test_what_an_outage_took_before_is_counted_once() -> None:
    with call_limits(budget_s=10):
        time.sleep(0.3)
        note_failing_for(4.0)
        assert 5.8 < within_budget(30) <= 6.0


@pytest.mark.parametrize("served", ["last_pause_at = now()", "started_at = now() - interval '1 second'"])
def test_time_in_which_no_worker_could_serve_uses_up_no_budget(
    hands: Callable[..., Services], engine: Engine, sent: Sent, simulator: Simulator, served: str
) -> None:
    """The database took no writes, or the workers were stopped, for longer than the budget."""
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand = hands(retry_timeout_s=600, retry_inline_s=0)
    job_id = begin(engine, fleet)
    execute_agent_row(hand, job_id, fleet.agent_id)
    execute(engine, "UPDATE provisioner.roster_intents SET created_at = now() - interval '20 minutes'")
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now(), published_at = NULL")
    long_ago = "now() - interval '1 day'"
    execute(engine, f"INSERT INTO provisioner.workers (name, started_at, pauses) VALUES ('w', {long_ago}, 1)")
    execute(engine, f"UPDATE provisioner.workers SET {served}")
    publish_due(engine, sent)
    execute_agent_row(hand, job_id, fleet.agent_id)  # the job looks before the writer has begun
    drive(hand, fleet, job_id, sent)
    assert job(engine, job_id).status == "succeeded", job(engine, job_id).error


@pytest.mark.parametrize("fault", [Drop(), Silence()], ids=["breaks off", "falls silent"])
def test_a_sync_at_a_gateway_that_lets_us_in_and_does_no_more_is_given_up(
    hands: Callable[..., Services], engine: Engine, simulator: Simulator, fault: Kind
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand = hands(retry_timeout_s=BUDGET_S, retry_inline_s=0)
    simulator.faults.schedule(Fault(fault, "config.get", times=None))
    job_id, began = ask_for_sync(engine, fleet), time.monotonic()
    while job(engine, job_id).status == "running" and time.monotonic() - began < 10:
        execute(engine, "UPDATE provisioner.jobs SET next_attempt_at = now() WHERE status = 'running'")
        publish_due(engine, lambda *_: None)
        execute_sync(hand, job_id)
        time.sleep(0.1)
    hand.clients.close_all()
    assert job(engine, job_id).status == "failed"
    assert time.monotonic() - began < 1.5 * BUDGET_S + 1


def ask_for_sync(engine: Engine, fleet: Fleet) -> UUID:
    job_id = uuid4()
    with engine.begin() as connection:
        target = {"gateway_id": str(fleet.gateway_id), "include_main": False}
        accepted = accept(connection, "sync_gateway", str(job_id), (), target)
        assert isinstance(accepted, Queued)
        assert isinstance(accepted.request, SyncGateway)
        begin_sync(connection, accepted.job_id, accepted.request)
    return job_id


def test_no_try_outlasts_what_is_left_of_the_budget_though_another_call_is_answered(
    hands: Callable[..., Services], engine: Engine, simulator: Simulator
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    job_id = ask_for_sync(engine, fleet)
    with Proxy(simulator.url) as proxy:
        execute(engine, "UPDATE gateways SET url = :url", url=proxy.url)
        proxy.hold(lambda called, _: called == "config.get")
        hand = hands(retry_timeout_s=30, retry_inline_s=0)
        execute(engine, "UPDATE provisioner.jobs SET failing_since = now() - interval '28 s'")
        began = time.monotonic()
        execute_sync(hand, job_id)
        assert 1.5 < time.monotonic() - began < 4
        hand.clients.close_all()
    assert "Given up after 30 seconds" in one(engine, "SELECT error FROM provisioner.jobs").error


def test_a_gateway_that_lets_us_in_and_then_breaks_off_each_time_is_given_up(
    hands: Callable[..., Services], engine: Engine, sent: Sent, simulator: Simulator
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand = hands(retry_timeout_s=BUDGET_S, retry_inline_s=0)
    simulator.faults.schedule(Fault(Drop(), "config.get", times=None))
    key = begin(engine, fleet, "update_agent")
    took_s = drive(hand, fleet, key, sent)
    assert BUDGET_S <= took_s < 2 * BUDGET_S + 2
    assert "unreachable for 2 seconds. Last error: the connection to the gateway" in job(engine, key).error
