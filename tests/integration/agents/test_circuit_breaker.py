"""An outage is the gateway's: one budget, one probe, everybody woken when it is over (rules.md 44, 45)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import Fleet, execute, job, job_agent, one, seed_fleet
from tests.integration.conftest import Sent
from tests.rows import execute_agent_row
from worker.gateway.address import GatewayAddress
from worker.gateway.errors import GatewayUnreachable
from worker.jobs.executor import Ended
from worker.jobs.intake import Accepted, accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.retry_policy import Snooze
from worker.records.agent_repository import load_agent
from worker.roster.circuit_breaker import fingerprint, note_failure, note_refused_token, note_up, try_probe
from worker.runtime.services import Services

BUDGET_S = 600.0


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A port that is ours and refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{taken.getsockname()[1]}"


def accept(engine: Engine, agent_id: UUID) -> UUID:
    key = uuid4()
    accepted = accept_agent_job(engine, "provision_agent", str(key), (), {"agent_id": str(agent_id)})
    assert isinstance(accepted, Accepted)
    return key


def fail(engine: Engine, gateway_id: UUID, budget_s: float = BUDGET_S) -> Any:
    with engine.begin() as connection:
        return note_failure(connection, gateway_id, GatewayUnreachable("refused"), budget_s)


def make_older(engine: Engine, seconds: float, *columns: str) -> None:
    shifts = ", ".join(f"{c} = {c} - make_interval(secs => :s)" for c in columns)
    execute(engine, f"UPDATE provisioner.gateway_states SET {shifts}", s=seconds)


def test_the_time_runs_from_the_first_failure_and_any_success_clears_it(engine: Engine) -> None:
    gateway_id = uuid4()
    assert fail(engine, gateway_id).down_for_s == 0
    make_older(engine, 500, "down_since", "last_failure_at")
    outage = fail(engine, gateway_id)
    assert 500 <= outage.down_for_s < 550
    assert outage.down_for_s < BUDGET_S
    make_older(engine, 101, "down_since")
    assert fail(engine, gateway_id).down_for_s >= BUDGET_S
    with engine.begin() as connection:
        note_up(connection, gateway_id)
    assert fail(engine, gateway_id).down_for_s == 0


def test_a_failure_long_after_the_last_one_begins_a_new_outage(engine: Engine) -> None:
    gateway_id = uuid4()
    fail(engine, gateway_id)
    make_older(engine, BUDGET_S + 1, "down_since", "last_failure_at")
    assert fail(engine, gateway_id).down_for_s == 0


def test_probes_come_less_often_the_longer_it_lasts_and_every_half_minute_at_least(engine: Engine) -> None:
    gateway_id = uuid4()
    waits = [fail(engine, gateway_id).wait_s]
    for age in (4, 16, 80, 300):
        make_older(engine, age, "down_since", "last_failure_at")
        waits.append(fail(engine, gateway_id).wait_s)
    assert waits[0] == pytest.approx(0.75, abs=0.01)
    assert 2 <= waits[1] < waits[2]
    assert 10 <= waits[2] < 30
    assert waits[3:] == [30, 30]


def test_of_all_that_ask_at_once_one_may_probe(engine: Engine) -> None:
    gateway_id = uuid4()
    fail(engine, gateway_id)
    make_older(engine, 1, "probe_until")
    together = Barrier(10)

    def ask(_: int) -> Any:
        together.wait()
        with engine.begin() as connection:
            return try_probe(connection, gateway_id, BUDGET_S)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(ask, range(10)))
    assert answers.count(None) == 1
    assert all(answer.wait_s == 0.75 for answer in answers if answer is not None)


def test_nobody_may_probe_before_its_time(engine: Engine) -> None:
    gateway_id = uuid4()
    fail(engine, gateway_id)
    with engine.begin() as connection:
        outage = try_probe(connection, gateway_id, BUDGET_S)
    assert outage is not None
    assert 0.1 <= outage.wait_s <= 0.75


def test_a_gateway_that_is_up_admits_everybody(engine: Engine) -> None:
    with engine.begin() as connection:
        assert try_probe(connection, uuid4(), BUDGET_S) is None


def test_on_a_dead_port_one_of_many_jobs_probes_and_the_others_say_what_it_met(
    hands: Any, engine: Engine, dead_url: str
) -> None:
    services: Services = hands(retry_timeout_s=600)
    fleet = seed_fleet(engine, agents=5, url=dead_url)
    jobs = [accept(engine, agent_id) for agent_id in fleet.agents]
    first, *others = zip(jobs, fleet.agents, strict=True)
    outcomes = [execute_agent_row(services, *first)]
    make_older(engine, -60, "probe_until")  # the others come in time, however slow the machine is
    outcomes += [execute_agent_row(services, *pair) for pair in others]
    assert all(isinstance(outcome, Snooze) for outcome in outcomes)
    reasons = [job_agent(engine, key).reason for key in jobs]
    assert not any(reason.startswith("gateway 'workshop' is down: ") for reason in reasons[:1])
    assert reasons[1:] == [f"gateway 'workshop' is down: {reasons[0]}"] * 4


def test_an_outage_that_nobody_has_met_for_a_budget_fails_no_new_job(
    hands: Any, engine: Engine, dead_url: str
) -> None:
    """Yesterday's outage: of two jobs that come today, one looks, and the other waits for what it finds."""
    services: Services = hands(retry_timeout_s=600)
    fleet = seed_fleet(engine, agents=2, url=dead_url)
    fail(engine, fleet.gateway_id)
    make_older(engine, 86_400, "down_since", "last_failure_at", "probe_until")
    with engine.begin() as connection:
        assert try_probe(connection, fleet.gateway_id, 600) is None
    for agent_id in fleet.agents:
        outcome = execute_agent_row(services, accept(engine, agent_id), agent_id)
        assert isinstance(outcome, Snooze), outcome


def test_when_the_gateway_is_back_those_who_wait_for_it_are_due(engine: Engine, sent: Sent) -> None:
    fleet, other = seed_fleet(engine, agents=3), seed_fleet(engine)
    parked = [_parked(engine, fleet, n, phase) for n, phase in enumerate(("intent", "files", "roster"))]
    elsewhere = _parked(engine, other, 0, "files")
    with engine.begin() as connection:
        note_up(connection, fleet.gateway_id)
    assert publish_due(engine, sent) == 0, "an outage that never was wakes nobody"
    fail(engine, fleet.gateway_id)
    with engine.begin() as connection:
        note_up(connection, fleet.gateway_id)
    publish_due(engine, sent)
    assert {task_id for _, _, task_id in sent} == {str(key) for key in parked[:2]}
    assert job_agent(engine, elsewhere).published_at is None


def test_when_the_gateway_is_back_a_sync_that_waits_for_it_is_due(engine: Engine, sent: Sent) -> None:
    fleet = seed_fleet(engine)
    key = uuid4()
    execute(
        engine,
        "INSERT INTO provisioner.jobs (id, kind, gateway_id, status, phase, next_attempt_at)"
        " VALUES (:id, 'sync_gateway', :gateway, 'running', 'look', now() + interval '25 s')",
        id=key,
        gateway=fleet.gateway_id,
    )
    fail(engine, fleet.gateway_id)
    with engine.begin() as connection:
        note_up(connection, fleet.gateway_id)
    assert publish_due(engine, sent) == 1
    assert [task_id for _, _, task_id in sent] == [str(key)]


def _parked(engine: Engine, fleet: Fleet, number: int, phase: str) -> UUID:
    key = accept(engine, fleet.agents[number])
    execute(
        engine,
        "UPDATE provisioner.job_agents SET status = 'running', phase = :phase, published_at = NULL,"
        " next_attempt_at = now() + interval '25 s' WHERE job_id = :id",
        id=key,
        phase=phase,
    )
    return key


def test_a_refused_token_is_not_tried_again_until_url_or_token_change(
    hands: Any, engine: Engine, dead_url: str
) -> None:
    services: Services = hands()
    fleet = seed_fleet(engine, agents=4, url=dead_url, token="wr0ng-t0ken")
    with engine.begin() as connection:
        address = load_agent(connection, fleet.agent_id).address
        note_refused_token(connection, fleet.gateway_id, address, "the gateway wants another one")
    key = accept(engine, fleet.agents[0])
    outcome = execute_agent_row(services, key, fleet.agents[0])
    assert outcome == Ended(
        "failed",
        "Gateway 'workshop' refused this token before, and neither gateways.url nor gateways.token of its row"
        " has changed since: the gateway wants another one. Where that was put right on its machine instead,"
        " run `provisioner doctor` once.",
    )
    assert job(engine, key).error == outcome.reason
    execute(engine, "UPDATE gateways SET token = 'an0ther-t0ken'")
    assert isinstance(execute_agent_row(services, accept(engine, fleet.agents[1]), fleet.agents[1]), Snooze)
    execute(engine, "UPDATE gateways SET token = 'wr0ng-t0ken', url = :url", url=dead_url + "/other")
    assert isinstance(execute_agent_row(services, accept(engine, fleet.agents[2]), fleet.agents[2]), Snooze)
    execute(engine, "UPDATE gateways SET url = :url", url=dead_url)
    assert isinstance(execute_agent_row(services, accept(engine, fleet.agents[3]), fleet.agents[3]), Ended)


def test_a_fingerprint_leads_back_to_nothing_and_tells_addresses_apart() -> None:
    addresses = [
        GatewayAddress("ws://a:1", "t"),
        GatewayAddress("ws://a:1", "u"),
        GatewayAddress("ws://b:1", "t"),
        GatewayAddress("ws://a:1", None),
    ]
    prints = [fingerprint(address) for address in addresses]
    assert len(set(prints)) == 4
    assert all(len(p) == 16 for p in prints)
    assert prints[0] == fingerprint(GatewayAddress("ws://a:1", "t"))


def test_the_state_of_a_gateway_holds_no_token(engine: Engine) -> None:
    fleet = seed_fleet(engine, token="plain-secret-token")
    with engine.begin() as connection:
        address = load_agent(connection, fleet.agent_id).address
        note_refused_token(connection, fleet.gateway_id, address, "the gateway wants another one")
    state = one(engine, "SELECT to_jsonb(s)::text AS text FROM provisioner.gateway_states s")
    assert "plain-secret-token" not in state.text
