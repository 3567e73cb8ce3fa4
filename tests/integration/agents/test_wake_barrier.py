"""Agents that are provisioned at once all get their files before the first of them is woken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, delete, text

from models import Agent
from tests.integration.agents.fleet import Fleet, execute, job_agent, main_with_block, seed_fleet
from tests.integration.conftest import Sent
from tests.rows import execute_agent_row
from worker.agents.wake_barrier import BARRIER_TIMEOUT_S, MOST_WITHOUT_FILES
from worker.jobs.executor import Ended
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.wake_batches import Woken, end_woken, gather_wakes
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Drop, Refuse
from worker.roster.writer import write_roster
from worker.runtime.services import Services

TOKEN = "the-gateways-own-token"


@pytest.fixture(params=["2026.2.12", "2026.9.6"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    owner = main_with_block(request.param)
    with Simulator(
        request.param, token=TOKEN, state_dir=tmp_path / "gateway", reply="OK", config=owner
    ) as simulator:
        yield simulator


@pytest.fixture
def fleet(engine: Engine, simulator: Simulator) -> Fleet:
    """As many agents that two of them find more than a few others."""
    return seed_fleet(engine, agents=MOST_WITHOUT_FILES + 3, url=simulator.url, token=TOKEN)


@pytest.fixture
def hand(hands: Callable[..., Services]) -> Services:
    return hands(retry_inline_s=10)


@pytest.fixture
def registered(hand: Services, engine: Engine, fleet: Fleet) -> dict[UUID, UUID]:
    """The agents of the fleet, each with its job, which waits no more for the roster."""
    jobs = {agent_id: uuid4() for agent_id in fleet.agents}
    for agent_id, job_id in jobs.items():
        accept_agent_job(engine, "provision_agent", str(job_id), (), {"agent_id": str(agent_id)})
        assert isinstance(execute_agent_row(hand, job_id, agent_id), Snooze)
    write_roster(hand, fleet.gateway_id)
    return jobs


def go_on(hand: Services, registered: dict[UUID, UUID], agent_id: UUID) -> object:
    return execute_agent_row(hand, registered[agent_id], agent_id)


def wakes(simulator: Simulator) -> int:
    return sum(call.method == "chat.send" for call in simulator.calls)


@pytest.fixture
def waiting(hand: Services, fleet: Fleet, registered: dict[UUID, UUID], sent: Sent) -> tuple[UUID, ...]:
    """Two agents that have their files and wait to be woken; the third of the fleet is to pass the
    barrier."""
    for agent_id in fleet.agents[:2]:
        outcome = go_on(hand, registered, agent_id)
        assert outcome == Snooze("waiting until the other agents have their files")
    sent.take()
    return fleet.agents[:2]


@pytest.fixture
def announced(hand: Services) -> list[UUID]:
    """The jobs of which those who watch were told."""
    told: list[UUID] = []
    object.__setattr__(hand, "announce", told.extend)
    return told


def jobs_of(sent: Sent) -> set[str | None]:
    return {task_id for _, _, task_id in sent.take()}


def shows_keys(simulator: Simulator) -> bool:
    """Whether the release tells which wakes arrived (gateways.md 3)."""
    return simulator.release.name >= "2026.8"


def test_wakes_wait_until_few_are_left_without_their_files_and_go_out_together_then(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    sent: Sent,
    announced: list[UUID],
) -> None:
    assert wakes(simulator) == 0
    third, rest = fleet.agents[2], fleet.agents[3:]
    assert go_on(hand, registered, third) == Ended("succeeded")
    assert wakes(simulator) == 3
    assert jobs_of(sent) == set()  # nobody has to come again
    assert set(announced) == {registered[agent_id] for agent_id in waiting}
    for agent_id in rest:
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
    assert wakes(simulator) == len(fleet.agents)
    assert sum(call.method == "sessions.patch" for call in simulator.calls) == len(fleet.agents)


def test_what_was_refused_is_sent_again_by_its_own_execution(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    engine: Engine,
) -> None:
    simulator.faults.schedule(Fault(Refuse("busy"), "chat.send"))
    together = [*waiting, fleet.agents[2]]
    assert go_on(hand, registered, together[-1]) == Ended("succeeded")  # its own is sent again at once
    rows = {agent_id: job_agent(engine, registered[agent_id]) for agent_id in together}
    refused = [agent_id for agent_id, row in rows.items() if row.woken_at is None]
    assert len(refused) <= 1
    for agent_id in refused:
        assert rows[agent_id].wake_sent_at is None
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
    for agent_id in together:
        row = job_agent(engine, registered[agent_id])
        assert row.woken_at is not None
        assert row.warnings == []
    assert wakes(simulator) == 4


def test_those_woken_by_another_end_as_by_themselves(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    engine: Engine,
    sent: Sent,
) -> None:
    next_job = uuid4()
    update = {"agent_id": str(waiting[0])}
    accept_agent_job(engine, "update_agent", str(next_job), (), update)
    assert execute_agent_row(hand, next_job, waiting[0]) is NotClaimed.AGENT_BUSY
    with engine.begin() as connection:
        connection.execute(delete(Agent).where(Agent.id == waiting[1]))
    third = fleet.agents[2]
    assert go_on(hand, registered, third) == Ended("succeeded")
    assert jobs_of(sent) == {str(next_job)}
    by_another, by_itself = (job_agent(engine, registered[agent_id]) for agent_id in (waiting[0], third))
    assert outcome_of(engine, registered[waiting[0]]) == outcome_of(engine, registered[third])
    for column in ("status", "phase", "reason", "wake", "lease_until", "next_attempt_at", "published_at"):
        assert getattr(by_another, column) == getattr(by_itself, column), column
    gone = job_agent(engine, registered[waiting[1]])
    assert (gone.status, gone.next_attempt_at is not None) == ("running", True)  # comes again to say so
    come_due(engine, waiting[1])
    publish_due(engine, sent)
    assert go_on(hand, registered, waiting[1]) == Ended(
        "failed", f"There is no agent with agent_id {waiting[1]}."
    )


def outcome_of(engine: Engine, job_id: UUID) -> dict[str, object]:
    """All that a job and its agent's rows say at the end, but for names, times and secrets."""
    with engine.connect() as connection:
        row = connection.execute(_OUTCOME, {"job_id": job_id}).one()._asdict()
    result = dict(row.pop("result"))
    for name in ("agent_id", "openclaw_id", "session_key", "workspace_path"):
        assert result.pop(name)
    result["files"] = {name: file["action"] for name, file in result["files"].items()}
    return {**row, "result": result}


def test_what_may_have_arrived_is_sent_again_only_where_that_can_be_seen(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    engine: Engine,
    sent: Sent,
) -> None:
    simulator.faults.schedule(Fault(Drop(carried_out=True), "chat.send"))
    together = [*waiting, fleet.agents[2]]
    outcome = go_on(hand, registered, together[-1])
    rows = {agent_id: job_agent(engine, registered[agent_id]) for agent_id in together}
    again = [agent_id for agent_id, row in rows.items() if row.woken_at is None]
    unknown = [agent_id for agent_id in again if rows[agent_id].wake_sent_at is not None]
    assert unknown  # some may have been answered, or not even sent, before the connection went
    assert isinstance(outcome, Snooze) is (together[-1] in again)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE status = 'running'")
    execute(engine, "UPDATE provisioner.gateway_states SET down_since = NULL")  # it is there again
    publish_due(engine, sent)
    for agent_id in again:
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
        row = job_agent(engine, registered[agent_id])
        known = agent_id not in unknown or shows_keys(simulator)
        assert (row.woken_at is not None, row.warnings == []) == (known, known)
    assert {job_agent(engine, registered[agent_id]).status for agent_id in together} == {"succeeded"}
    assert wakes(simulator) <= (3 if not shows_keys(simulator) else 3 + len(unknown))


def test_a_worker_that_dies_with_the_wakes_of_many_leaves_each_to_its_own_execution(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    engine: Engine,
    sent: Sent,
) -> None:
    with engine.begin() as connection:
        gathered = gather_wakes(connection, fleet.gateway_id)
    assert {wake.agent_id for wake in gathered} == set(waiting)
    publish_due(engine, sent)
    assert jobs_of(sent) == set()
    assert go_on(hand, registered, fleet.agents[2]) == Ended("succeeded")  # nobody waits any more
    for agent_id in waiting:
        come_due(engine, agent_id)
    publish_due(engine, sent)
    for agent_id in waiting:
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
        seen = shows_keys(simulator)
        assert (job_agent(engine, registered[agent_id]).woken_at is not None) is seen
    assert wakes(simulator) == (3 if shows_keys(simulator) else 1)


def test_who_is_being_woken_by_another_is_not_cancelled_on_the_way(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    engine: Engine,
    sent: Sent,
) -> None:
    first, second = waiting
    with engine.begin() as connection:
        gathered = gather_wakes(connection, fleet.gateway_id)
    with engine.begin() as connection:
        assert cancel(connection, registered[first]) is False
    publish_due(engine, sent)
    assert jobs_of(sent) == set()
    woken = [Woken(str(each.job_id), str(each.agent_id), each.result) for each in gathered]
    with engine.begin() as connection:
        assert {row.agent_id for row in end_woken(connection, woken)} == {first, second}
    assert {job_agent(engine, registered[agent_id]).status for agent_id in waiting} == {"succeeded"}


def test_a_wake_waits_for_others_but_not_for_ever(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    simulator: Simulator,
    sent: Sent,
    engine: Engine,
) -> None:
    first = fleet.agents[0]
    assert isinstance(go_on(hand, registered, first), Snooze)
    sent.take()
    come_due(engine, first)
    publish_due(engine, sent)
    assert [task_id for _, _, task_id in sent.take()] == [str(registered[first])]
    assert isinstance(go_on(hand, registered, first), Snooze)
    come_due(engine, first)
    publish_due(engine, sent)
    began = "UPDATE provisioner.job_agents SET started_at = now() - make_interval(secs => :s)"
    execute(engine, f"{began} WHERE agent_id = :id", s=BARRIER_TIMEOUT_S, id=first)
    assert wakes(simulator) == 0
    assert go_on(hand, registered, first) == Ended("succeeded")
    assert wakes(simulator) == 1


_OUTCOME = text("""
    SELECT j.status, j.phase, j.error, j.warnings, j.result, j.agents_total, j.agents_done,
        j.next_attempt_at, j.published_at, j.lease_until, a.status AS agent_status, a.provision_action,
        a.provision_requested_at, a.heartbeat_config::text, a.openclaw_session_id = j.result ->> 'session_key'
            AS has_key, c.gateway_id
    FROM provisioner.jobs j JOIN agents a ON a.id = j.agent_id
    JOIN provisioner.agent_credentials c ON c.agent_id = a.id
    WHERE j.id = :job_id
""")


def come_due(engine: Engine, agent_id: UUID) -> None:
    """The time has come at which a parked wake looks by itself."""
    due = "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE agent_id = :id AND phase = 'wake'"
    assert execute(engine, due, id=agent_id) == 1
