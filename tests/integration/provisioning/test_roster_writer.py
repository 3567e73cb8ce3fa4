"""One patch for all that waits, on the simulator; what may happen in the middle of it (design D1)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, Row, text

from tests.acceptance.proxy import Door
from tests.integration.conftest import Sent
from tests.integration.provisioning.fleet import Fleet, execute, job, job_agent, one, seed_fleet
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.provisioning.facts import load_agent
from worker.provisioning.intents import record_intent
from worker.provisioning.roster_writer import write_roster
from worker.provisioning.services import Services
from worker.provisioning.turn import Ended, take_turn
from worker.provisioning.work import Parked
from worker.simulator import Simulator

TOKEN = "the-gateways-own-token"


@pytest.fixture(params=["2026.2.12", "2026.9.6"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(request.param, token=TOKEN, state_dir=tmp_path / "gateway", reply="OK") as simulator:
        yield simulator


@pytest.fixture
def door(simulator: Simulator) -> Iterator[Door]:
    with Door(simulator.url) as door:
        yield door


@pytest.fixture
def fleet(engine: Engine, door: Door) -> Fleet:
    return seed_fleet(engine, agents=6, url=door.url, token=TOKEN)


@pytest.fixture
def hand(hands: Callable[..., Services]) -> Services:
    return hands(retry_inline_s=2, retry_budget_s=60)


def want(engine: Engine, fleet: Fleet, *agents: UUID) -> None:
    """Record an intent for each agent, as a job does."""
    with engine.begin() as connection:
        for agent_id in agents or fleet.agents:
            record_intent(
                connection,
                gateway_id=fleet.gateway_id,
                agent_id=agent_id,
                job_id=uuid4(),
                change="reconcile",
                openclaw_id=f"mc-{agent_id}",
            )


def intents(engine: Engine) -> list[Row[Any]]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM provisioner.roster_intents ORDER BY id")))


def state(engine: Engine) -> Row[Any]:
    return one(engine, "SELECT * FROM provisioner.gateway_states")


def patches(simulator: Simulator) -> int:
    return sum(call.method == "config.patch" for call in simulator.calls)


def held(door: Door, method: str, *, after: bool = False) -> Any:
    return door.hold(lambda called, _: called == method, after=after)


def test_all_that_waits_is_written_with_one_patch_and_read_back(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert patches(simulator) == 1
    assert all(i.applied_at is not None and i.present_before is False for i in intents(engine))
    assert {f"mc-{agent}" for agent in fleet.agents} <= set(simulator.agents())
    after = state(engine)
    assert (after.writer_owner, after.writer_until, after.restart_expected_at) == (None, None, None)


def test_what_stands_already_is_not_written_again(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    config = simulator.config_path.read_bytes()
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert patches(simulator) == 1
    assert simulator.config_path.read_bytes() == config
    assert [i.present_before for i in intents(engine)] == [False] * 6 + [True] * 6
    assert all(i.applied_at is not None for i in intents(engine))


def test_two_writers_at_once_lose_nothing(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    def ask(agent_id: UUID) -> None:
        want(engine, fleet, agent_id)
        write_roster(hand, fleet.gateway_id)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, fleet.agents))
    assert {f"mc-{agent}" for agent in fleet.agents} <= set(simulator.agents())
    assert all(i.applied_at is not None for i in intents(engine))


def test_an_outsiders_edit_in_the_middle_is_kept(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, door: Door
) -> None:
    want(engine, fleet)
    hold = held(door, "config.patch")
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(10)
    config = json.loads(simulator.config_path.read_text())
    config["messages"] = {"ackReactionScope": "direct"}
    simulator.config_path.write_text(json.dumps(config))
    hold.release()
    writer.join(20)
    assert json.loads(simulator.config_path.read_text())["messages"] == {"ackReactionScope": "direct"}
    assert {f"mc-{agent}" for agent in fleet.agents} <= set(simulator.agents())
    assert patches(simulator) == 2
    assert sum(call.method == "config.patch" and call.ok for call in simulator.calls) == 1


def test_a_patch_whose_answer_was_lost_is_read_back_and_not_sent_again(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, door: Door
) -> None:
    want(engine, fleet)
    hold = held(door, "config.patch", after=True)
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(10)
    simulator.kill()
    hold.release()
    simulator.start()
    writer.join(30)
    if any(
        i.applied_at is None for i in intents(engine)
    ):  # it found the gateway away and left it to the clock
        execute(engine, "UPDATE provisioner.gateway_states SET writer_not_before = NULL")
        write_roster(hand, fleet.gateway_id)
    assert patches(simulator) == 1
    assert all(i.applied_at is not None for i in intents(engine))


def test_a_writer_that_lost_its_lease_sends_nothing(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, door: Door
) -> None:
    want(engine, fleet)
    hold = held(door, "config.get", after=True)
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(10)
    execute(
        engine,
        "UPDATE provisioner.gateway_states SET writer_generation = writer_generation + 1,"
        " writer_until = now() + interval '1 min'",
    )
    hold.release()
    writer.join(20)
    assert patches(simulator) == 0
    assert all(i.applied_at is None and i.error is None for i in intents(engine))


def test_an_agent_that_is_gone_or_moved_is_refused_with_a_sentence_and_the_rest_goes_on(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    gone, moved, *rest = fleet.agents
    want(engine, fleet)
    execute(engine, "DELETE FROM agents WHERE id = :id", id=gone)
    elsewhere = fleet.add_gateway("elsewhere", "ws://127.0.0.1:9")
    execute(engine, "UPDATE agents SET gateway_id = :to WHERE id = :id", to=elsewhere, id=moved)
    write_roster(hand, fleet.gateway_id)
    settled = {i.agent_id: i for i in intents(engine)}
    for agent_id in (gone, moved):
        assert settled[agent_id].error == "The agent was deleted, or moved to another gateway."
    assert all(settled[agent_id].applied_at is not None for agent_id in rest)
    assert not {f"mc-{gone}", f"mc-{moved}"} & set(simulator.agents())


def test_a_gateway_that_is_away_is_called_on_later_and_given_up_when_the_budget_is_spent(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, sent: Sent
) -> None:
    simulator.stop()
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert all(i.applied_at is None and i.error is None for i in intents(engine))
    assert state(engine).writer_not_before is not None
    assert publish_due(engine, sent) == 0
    execute(
        engine,
        "UPDATE provisioner.gateway_states SET writer_not_before = now() - interval '1 ms',"
        " down_since = now() - interval '61 s', writer_queued_at = NULL",
    )
    assert publish_due(engine, sent) == 1
    write_roster(hand, fleet.gateway_id)
    assert {i.error.split(". ")[0] for i in intents(engine)} == {"The gateway was unreachable for 1 minutes"}


def test_a_job_that_looks_while_its_intent_is_being_settled_does_not_sleep_through_it(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    agent_id, key = fleet.agent_id, uuid4()
    accept_agent_job(engine, "provision_agent", str(key), (), {"agent_id": str(agent_id)})
    assert isinstance(take_turn(hand, key, agent_id), Parked)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now()")
    assert publish_due(engine, lambda *_: None) >= 1
    write = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as settling:
            settling.execute(text("SELECT 1 FROM provisioner.roster_intents FOR UPDATE"))
            turn = pool.submit(take_turn, hand, key, agent_id)
            while not (write.wait(0.02) or turn.done() or _waits_for_a_lock(engine)):
                pass
            settling.execute(text("UPDATE provisioner.roster_intents SET error = 'settled meanwhile'"))
        assert turn.result(20) == Ended("failed", "Settled meanwhile")
    assert job(engine, key).status == "failed"
    assert job_agent(engine, key).next_attempt_at is None


def _waits_for_a_lock(engine: Engine) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(one(engine, f"{waiting} AND datname = current_database()")[0])


def test_what_is_written_is_what_the_rows_say_at_that_moment(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    """Intents, not contents: an intent recorded before a change cannot bring the old state back."""
    want(engine, fleet, fleet.agent_id)
    execute(
        engine,
        "UPDATE agents SET name = 'New', heartbeat_config = '{\"every\": \"2h\"}' WHERE id = :id",
        id=fleet.agent_id,
    )
    write_roster(hand, fleet.gateway_id)
    with engine.connect() as connection:
        record = load_agent(connection, fleet.agent_id)
    entry = simulator.agents()[record.openclaw_id]
    assert (entry["name"], entry["heartbeat"]["every"], entry["workspace"]) == ("New", "2h", record.workspace)
