"""One patch for all that waits, on the simulator; what may happen in the middle of it (decisions.md D1)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import OperationalError

from tests.acceptance.proxy import Proxy
from tests.integration.agents.fleet import Fleet, execute, job, job_agent, one, seed_fleet
from tests.integration.conftest import Sent
from tests.rows import execute_agent_row
from worker.jobs.executor import Ended
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.retry_policy import Snooze
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator
from worker.lab.simulator.faults import Fault, Refuse
from worker.records.agent_repository import load_agent
from worker.roster.intents import RosterChange, record_intents
from worker.roster.lease import RosterLease
from worker.roster.writer import write_roster
from worker.runtime.services import Services

TOKEN = "the-gateways-own-token"


@pytest.fixture(params=["2026.2.12", "2026.9.6"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(request.param, token=TOKEN, state_dir=tmp_path / "gateway", reply="OK") as simulator:
        yield simulator


@pytest.fixture
def proxy(simulator: Simulator) -> Iterator[Proxy]:
    with Proxy(simulator.url) as proxy:
        yield proxy


@pytest.fixture
def fleet(engine: Engine, proxy: Proxy) -> Fleet:
    return seed_fleet(engine, agents=6, url=proxy.url, token=TOKEN)


@pytest.fixture
def hand(hands: Callable[..., Services]) -> Services:
    return hands(retry_inline_s=2, retry_timeout_s=60)


def want(engine: Engine, fleet: Fleet, *agents: UUID) -> None:
    """Record an intent for each agent, as a job does."""
    with engine.begin() as connection:
        for agent_id in agents or fleet.agents:
            record_intents(connection, fleet.gateway_id, uuid4(), RosterChange(agent_id, f"mc-{agent_id}"))


def intents(engine: Engine) -> list[Row[Any]]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM provisioner.roster_intents ORDER BY id")))


def state(engine: Engine) -> Row[Any]:
    return one(engine, "SELECT * FROM provisioner.gateway_states")


def patches(simulator: Simulator) -> int:
    return sum(call.method == "config.patch" for call in simulator.calls)


def held(proxy: Proxy, method: str, *, after: bool = False) -> Any:
    return proxy.hold(lambda called, _: called == method, after=after)


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


def test_the_writer_gathers_for_as_long_as_more_arrives(
    hands: Callable[..., Services], engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    first, *others = fleet.agents
    want(engine, fleet, first)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write_roster, hands(roster_batch_window_s=0.5), fleet.gateway_id)
        for agent_id in others:
            time.sleep(0.25)
            want(engine, fleet, agent_id)
        written.result(20)
    assert patches(simulator) == 1
    assert all(i.applied_at is not None for i in intents(engine))


def test_the_writer_waits_for_who_is_about_to_ask_but_not_for_ever(
    hands: Callable[..., Services], engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    first, second = fleet.agents[:2]
    asking = at_work(engine, fleet, second, "intent")
    want(engine, fleet, first)
    hand = hands(roster_batch_window_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write_roster, hand, fleet.gateway_id)
        time.sleep(1)
        assert not written.done()
        want(engine, fleet, second)
        execute(engine, "UPDATE provisioner.job_agents SET phase = 'roster' WHERE job_id = :id", id=asking)
        written.result(20)
        assert patches(simulator) == 1
        at_work(engine, fleet, fleet.agents[2], "intent")
        want(engine, fleet, fleet.agents[3])
        pool.submit(write_roster, hand, fleet.gateway_id).result(20)
    assert patches(simulator) == 2


def at_work(engine: Engine, fleet: Fleet, agent_id: UUID, phase: str) -> UUID:
    """A worker is in that phase of a provision of the agent; its job's id."""
    job_id = uuid4()
    with engine.begin() as connection:
        values = {"id": job_id, "agent_id": agent_id, "gateway_id": fleet.gateway_id, "phase": phase}
        connection.execute(_AT_WORK_JOB, values)
        connection.execute(_AT_WORK_ROW, values)
    return job_id


_AT_WORK_JOB = text("""
    INSERT INTO provisioner.jobs (id, kind, status, agent_id, gateway_id, options, agents_total)
    VALUES (:id, 'provision_agent', 'running', :agent_id, :gateway_id, '{}', 1)
""")
_AT_WORK_ROW = text("""
    INSERT INTO provisioner.job_agents (job_id, agent_id, agent_name, status, phase, lease_until)
    VALUES (:id, :agent_id, 'Agent', 'running', :phase, now() + interval '1 minute')
""")


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
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, proxy: Proxy
) -> None:
    want(engine, fleet)
    hold = held(proxy, "config.patch")
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(60)
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
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, proxy: Proxy
) -> None:
    want(engine, fleet)
    hold = held(proxy, "config.patch", after=True)
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(60)
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
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, proxy: Proxy
) -> None:
    want(engine, fleet)
    hold = held(proxy, "config.get", after=True)
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(60)
    lose_the_lease(engine)
    hold.release()
    writer.join(20)
    assert patches(simulator) == 0
    assert all(i.applied_at is None and i.error is None for i in intents(engine))


def lose_the_lease(engine: Engine) -> None:
    """Let another writer have the gateway for a minute."""
    execute(
        engine,
        "UPDATE provisioner.gateway_states SET writer_generation = writer_generation + 1,"
        " writer_until = now() + interval '1 min'",
    )


def test_a_write_that_has_not_left_before_its_lease_may_be_over_never_leaves(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a sleep between the check and the frame, which nobody sees coming."""
    check, asked = RosterLease.about_to_write, []

    def overslept(lease: RosterLease, restart_s: float) -> float:
        asked.append(check(lease, restart_s))
        return asked[-1] - lease.lease_s if len(asked) == 1 else asked[-1]

    monkeypatch.setattr(RosterLease, "about_to_write", overslept)
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert (len(asked), patches(simulator)) == (2, 1)
    assert all(i.applied_at is not None for i in intents(engine))


def test_a_writer_that_lost_its_lease_after_the_read_back_settles_nothing(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, proxy: Proxy
) -> None:
    """The next holder may have removed since what this one has seen."""
    want(engine, fleet)
    patch = held(proxy, "config.patch")
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert patch.reached.wait(60)
    read_back = held(proxy, "config.get", after=True)
    patch.release()
    assert read_back.reached.wait(60)
    lose_the_lease(engine)
    read_back.release()
    writer.join(20)
    assert {f"mc-{agent}" for agent in fleet.agents} <= set(simulator.agents())
    assert all(i.applied_at is None and i.error is None for i in intents(engine))


def test_a_writer_that_lost_its_lease_refuses_nothing(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator, proxy: Proxy
) -> None:
    """What failed for this one may succeed for the holder."""
    want(engine, fleet)
    simulator.faults.schedule(Fault(Refuse("no", "INVALID_REQUEST"), "config.get"))
    hold = held(proxy, "config.get", after=True)
    writer = threading.Thread(target=write_roster, args=(hand, fleet.gateway_id))
    writer.start()
    assert hold.reached.wait(60)
    lose_the_lease(engine)
    hold.release()
    writer.join(20)
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
        assert settled[agent_id].reason_code == "agent_deleted"
    assert all(settled[agent_id].applied_at is not None for agent_id in rest)
    assert not {f"mc-{gone}", f"mc-{moved}"} & set(simulator.agents())


@pytest.mark.parametrize(
    ("columns", "refusal"),
    [
        ("workspace_root = ' '", ("gateway 'workshop' has no workspace_root", "permanent_error")),
        ("url = 'http://x'", ("the gateway's URL begins with http", "gateway_refused")),
    ],
)
def test_what_is_wrong_with_the_gateways_row_is_not_told_of_its_agents(
    hand: Services, engine: Engine, fleet: Fleet, columns: str, refusal: tuple[str, str]
) -> None:
    execute(engine, f"UPDATE gateways SET {columns}")
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert {(i.error.split(":")[0], i.reason_code) for i in intents(engine)} == {refusal}


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
    assert {i.reason_code for i in intents(engine)} == {"gateway_unreachable"}


def test_a_job_that_looks_while_its_intent_is_being_settled_does_not_sleep_through_it(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    agent_id, key = fleet.agent_id, uuid4()
    accept_agent_job(engine, "provision_agent", str(key), (), {"agent_id": str(agent_id)})
    assert isinstance(execute_agent_row(hand, key, agent_id), Snooze)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now()")
    assert publish_due(engine, lambda *_: None) >= 1
    write = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as settling:
            settling.execute(text("SELECT 1 FROM provisioner.roster_intents FOR UPDATE"))
            executed = pool.submit(execute_agent_row, hand, key, agent_id)
            while not (write.wait(0.02) or executed.done() or _waits_for_a_lock(engine)):
                pass
            settling.execute(text("UPDATE provisioner.roster_intents SET error = 'settled meanwhile'"))
        assert executed.result(20) == Ended("failed", "Settled meanwhile")
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


@pytest.mark.parametrize(
    ("heartbeat", "sentence", "rejected"),
    [
        ({"every": "banana"}, "agents.heartbeat_config says every: 'banana'", 0),
        ({"every": "10 bananas"}, "The gateway refuses the roster entry of agent 'Agent 2'", 1),
        ({"everyy": "10m"}, "The gateway refuses the roster entry of agent 'Agent 2'", 1),
    ],
)
def test_one_bad_entry_fails_its_own_agent_and_the_rest_is_written(
    hand: Services,
    engine: Engine,
    fleet: Fleet,
    simulator: Simulator,
    heartbeat: dict[str, str],
    sentence: str,
    rejected: int,
) -> None:
    bad = fleet.agents[2]
    execute(
        engine,
        "UPDATE agents SET name = 'Agent 2', heartbeat_config = CAST(:heartbeat AS json) WHERE id = :id",
        id=bad,
        heartbeat=json.dumps(heartbeat),
    )
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    settled = {i.agent_id: i for i in intents(engine)}
    assert sentence in settled[bad].error
    assert "heartbeat_config" in settled[bad].error
    assert settled[bad].reason_code == ("gateway_refused" if rejected else "permanent_error")
    rest = set(fleet.agents) - {bad}
    assert all(settled[agent_id].applied_at is not None for agent_id in rest)
    assert {f"mc-{agent}" for agent in rest} <= set(simulator.agents())
    assert f"mc-{bad}" not in simulator.agents()
    assert patches(simulator) == 1 + rejected


def test_an_intent_for_agents_of_the_roster_alone_brings_nobody_into_it(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    there, absent = fleet.agents[:2]
    want(engine, fleet, there)
    write_roster(hand, fleet.gateway_id)
    execute(engine, 'UPDATE agents SET heartbeat_config = \'{"every": "2h"}\'')
    with engine.begin() as connection:
        changes = [
            RosterChange(agent_id, f"mc-{agent_id}", only_present=True) for agent_id in (there, absent)
        ]
        record_intents(connection, fleet.gateway_id, uuid4(), *changes)
    write_roster(hand, fleet.gateway_id)
    *_, first, second = intents(engine)
    assert (first.agent_id, first.error) == (there, None)
    assert simulator.agents()[f"mc-{there}"]["heartbeat"]["every"] == "2h"
    assert (second.agent_id, second.error, second.reason_code) == (
        absent,
        "It is not in its gateway's roster: provision it first.",
        "not_registered",
    )
    assert f"mc-{absent}" not in simulator.agents()


def test_a_change_of_an_agent_that_is_being_deleted_cannot_bring_it_back(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    agent_id = fleet.agent_id
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    with engine.begin() as connection:
        wanted = RosterChange(agent_id, f"mc-{agent_id}", "remove")
        record_intents(connection, fleet.gateway_id, uuid4(), wanted)
    want(engine, fleet, agent_id)
    write_roster(hand, fleet.gateway_id)
    removal, change = intents(engine)[-2:]
    assert removal.applied_at is not None
    assert (change.error, change.reason_code) == ("The agent is being deleted.", "agent_deleted")
    assert removal.reason_code is None
    assert f"mc-{agent_id}" not in simulator.agents()


def test_whoever_waits_for_a_removal_does_not_wait_for_all_of_them(
    hand: Services, engine: Engine, fleet: Fleet, proxy: Proxy, simulator: Simulator
) -> None:
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    with engine.begin() as connection:
        for agent_id in fleet.agents:
            wanted = RosterChange(agent_id, f"mc-{agent_id}", "remove")
            record_intents(connection, fleet.gateway_id, uuid4(), wanted)
    *_, last = fleet.agents
    hold = proxy.hold(lambda method, params: params.get("agentId") == f"mc-{last}")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_roster, hand, fleet.gateway_id)
        assert hold.reached.wait(60)
        applied = [intent.applied_at is not None for intent in intents(engine)[-6:]]
        hold.release()
        writing.result(timeout=60)
    assert applied == [True] * 5 + [False]
    assert not {f"mc-{agent}" for agent in fleet.agents} & set(simulator.agents())


def test_the_first_heartbeat_block_warns_of_whom_it_silences(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    config = json.loads(simulator.config_path.read_text())
    config.setdefault("agents", {})["defaults"] = {"heartbeat": {"every": "1h"}}
    if simulator.release.name < "2026.8":
        config["agents"]["list"] = [{"id": "main"}, {"id": "owners"}]
    else:
        config["agents"] |= {"ownership": "explicit", "entries": {"main": {}, "owners": {}}}
    simulator.config_path.write_text(json.dumps(config))
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    first, *others = [intent.warning for intent in intents(engine)]
    beat = "main, owners" if simulator.release.roster_is_map else "main"
    assert f"{beat}, which beat without one, will stop beating" in first
    assert set(others) == {None}
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert intents(engine)[-1].warning is None


def test_a_config_that_others_write_all_the_time_is_tried_again_later_and_given_up_in_the_end(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    want(engine, fleet)
    stale = Refuse("config changed since last load; re-run config.get and retry", code="INVALID_REQUEST")
    simulator.faults.schedule(Fault(stale, method="config.patch", times=None))
    write_roster(hand, fleet.gateway_id)
    assert all(i.applied_at is None and i.error is None for i in intents(engine))
    assert state(engine).writer_not_before is not None
    assert state(engine).down_since is None
    execute(engine, "UPDATE provisioner.gateway_states SET writer_not_before = NULL")
    execute(engine, "UPDATE provisioner.roster_intents SET created_at = now() - interval '61 s'")
    write_roster(hand, fleet.gateway_id)
    assert {i.error.split(":")[0] for i in intents(engine)} == {
        "The roster could not be written within 60 seconds"
    }
    assert {i.reason_code for i in intents(engine)} == {"retries_exhausted"}


@contextmanager
def no_database(services: LocalServices, engine: Engine) -> Iterator[None]:
    """The database of the test lets nobody in, and ends the connections that there are."""
    admin = psycopg.connect(services.postgres.url("postgres").replace("+psycopg", ""), autocommit=True)
    name = sql.Identifier(str(engine.url.database))
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [engine.url.database]
    )
    try:
        yield
    finally:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        admin.close()


def test_a_writer_that_lost_postgres_sends_nothing_and_another_goes_on(
    hands: Any, services: LocalServices, engine: Engine, fleet: Fleet, simulator: Simulator, proxy: Proxy
) -> None:
    want(engine, fleet)
    hand = hands(lease_s=2)
    hold = held(proxy, "config.get", after=True)
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write_roster, hand, fleet.gateway_id)
        assert hold.reached.wait(60)
        with no_database(services, engine):
            hold.release()
            with pytest.raises(OperationalError):
                writer.result(20)
    assert patches(simulator) == 0
    deadline = time.monotonic() + 20
    while patches(simulator) == 0 and time.monotonic() < deadline:
        write_roster(hand, fleet.gateway_id)  # nothing, while the dead one's lease lasts
        time.sleep(0.1)
    assert patches(simulator) == 1
    assert all(i.applied_at is not None for i in intents(engine))


def test_hundreds_of_intents_are_one_patch(
    hand: Services, engine: Engine, simulator: Simulator, proxy: Proxy
) -> None:
    many = seed_fleet(engine, agents=300, url=proxy.url, token=TOKEN)
    want(engine, many)
    write_roster(hand, many.gateway_id)
    assert patches(simulator) == 1
    assert {f"mc-{agent}" for agent in many.agents} <= set(simulator.agents())
    assert all(i.applied_at is not None for i in intents(engine))


def test_a_refused_patch_leaves_nobody_waiting_for_a_restart(
    hand: Services, engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    execute(engine, 'UPDATE agents SET heartbeat_config = \'{"every": "10 bananas"}\'')
    want(engine, fleet)
    write_roster(hand, fleet.gateway_id)
    assert all(i.error is not None for i in intents(engine))
    assert patches(simulator) == 1
    assert state(engine).restart_expected_at is None


def test_a_restart_waits_for_the_answer_to_a_wake_that_is_on_its_way(
    hand: Services,
    engine: Engine,
    fleet: Fleet,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken, rest = fleet.agents[0], fleet.agents[1:]
    key = uuid4()
    accept_agent_job(engine, "provision_agent", str(key), (), {"agent_id": str(woken)})
    execute(
        engine,
        "UPDATE provisioner.job_agents SET status = 'running', phase = 'wake', wake_sent_at = now(),"
        " lease_until = now() + interval '1 minute'",
    )
    look, looks = RosterLease.wakes_in_flight, threading.Semaphore(0)

    def counted(lease: RosterLease) -> bool:
        found = look(lease)
        looks.release()
        return found

    monkeypatch.setattr(RosterLease, "wakes_in_flight", counted)
    want(engine, fleet, *rest)
    restarts = simulator.release.name < "2026.8"
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write_roster, hand, fleet.gateway_id)
        if restarts:
            assert looks.acquire(timeout=10)
            assert looks.acquire(timeout=10)
            assert patches(simulator) == 0
            assert state(engine).restart_expected_at is not None
            execute(engine, "UPDATE provisioner.job_agents SET lease_until = NULL")
        writer.result(20)
    assert patches(simulator) == 1
