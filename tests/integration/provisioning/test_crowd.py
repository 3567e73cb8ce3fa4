"""Agents that are provisioned at once all get their files before the first of them is woken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.integration.conftest import Sent
from tests.integration.provisioning.fleet import Fleet, execute, job_agent, seed_fleet
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.wakes import gather_wakes
from worker.provisioning.crowd import CROWD_PATIENCE_S, FEW
from worker.provisioning.roster_writer import write_roster
from worker.provisioning.services import Services
from worker.provisioning.turn import Ended, take_turn
from worker.provisioning.work import Parked
from worker.simulator import Fault, Simulator
from worker.simulator.faults import Drop, Refuse

TOKEN = "the-gateways-own-token"


@pytest.fixture(params=["2026.2.12", "2026.9.6"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(request.param, token=TOKEN, state_dir=tmp_path / "gateway", reply="OK") as simulator:
        yield simulator


@pytest.fixture
def fleet(engine: Engine, simulator: Simulator) -> Fleet:
    """As many agents that two of them find more than a few others."""
    return seed_fleet(engine, agents=FEW + 3, url=simulator.url, token=TOKEN)


@pytest.fixture
def hand(hands: Callable[..., Services]) -> Services:
    return hands(retry_inline_s=10)


@pytest.fixture
def registered(hand: Services, engine: Engine, fleet: Fleet) -> dict[UUID, UUID]:
    """The agents of the fleet, each with its job, which waits no more for the roster."""
    jobs = {agent_id: uuid4() for agent_id in fleet.agents}
    for agent_id, job_id in jobs.items():
        accept_agent_job(engine, "provision_agent", str(job_id), (), {"agent_id": str(agent_id)})
        assert isinstance(take_turn(hand, job_id, agent_id), Parked)
    write_roster(hand, fleet.gateway_id)
    return jobs


def go_on(hand: Services, registered: dict[UUID, UUID], agent_id: UUID) -> object:
    return take_turn(hand, registered[agent_id], agent_id)


def wakes(simulator: Simulator) -> int:
    return sum(call.method == "chat.send" for call in simulator.calls)


@pytest.fixture
def waiting(hand: Services, fleet: Fleet, registered: dict[UUID, UUID], sent: Sent) -> tuple[UUID, ...]:
    """Two agents that have their files and wait to be woken; the third of the fleet is to leave the crowd."""
    for agent_id in fleet.agents[:2]:
        outcome = go_on(hand, registered, agent_id)
        assert outcome == Parked("waiting until the other agents have their files")
    sent.take()
    return fleet.agents[:2]


def jobs_of(sent: Sent) -> set[str | None]:
    return {task_id for _, _, task_id in sent.take()}


def shows_keys(simulator: Simulator) -> bool:
    """Whether the release tells which wakes arrived (gateway.md 3)."""
    return simulator.release.name >= "2026.8"


def test_wakes_wait_until_few_are_left_without_their_files_and_go_out_together_then(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    sent: Sent,
) -> None:
    assert wakes(simulator) == 0
    third, rest = fleet.agents[2], fleet.agents[3:]
    assert go_on(hand, registered, third) == Parked("being woken")
    assert wakes(simulator) == 3
    assert jobs_of(sent) == {str(registered[agent_id]) for agent_id in (*waiting, third)}
    before = len(simulator.calls)
    for agent_id in (*waiting, third):
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
    assert len(simulator.calls) == before
    for agent_id in rest:
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
    assert wakes(simulator) == len(fleet.agents)
    assert sum(call.method == "sessions.patch" for call in simulator.calls) == len(fleet.agents)


def test_what_was_refused_is_sent_again_by_its_own_turn(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    engine: Engine,
) -> None:
    simulator.faults.order(Fault(Refuse("busy"), "chat.send"))
    together = [*waiting, fleet.agents[2]]
    go_on(hand, registered, together[-1])
    rows = [job_agent(engine, registered[agent_id]) for agent_id in together]
    assert sorted(row.woken_at is None for row in rows) == [False, False, True]
    assert all((row.wake_sent_at is None) is (row.woken_at is None) for row in rows)
    for agent_id in together:
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
        row = job_agent(engine, registered[agent_id])
        assert row.woken_at is not None
        assert row.warnings == []
    assert wakes(simulator) == 4


def test_what_may_have_arrived_is_sent_again_only_where_that_can_be_seen(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    waiting: tuple[UUID, ...],
    simulator: Simulator,
    engine: Engine,
) -> None:
    simulator.faults.order(Fault(Drop(carried_out=True), "chat.send"))
    together = [*waiting, fleet.agents[2]]
    assert go_on(hand, registered, together[-1]) == Parked("being woken")
    rows = {agent_id: job_agent(engine, registered[agent_id]) for agent_id in together}
    unknown = [agent_id for agent_id, row in rows.items() if row.woken_at is None]
    assert unknown  # some may have been answered before the connection went
    assert all(rows[agent_id].wake_sent_at is not None for agent_id in unknown)
    for agent_id in together:
        assert go_on(hand, registered, agent_id) == Ended("succeeded")
        row = job_agent(engine, registered[agent_id])
        known = agent_id not in unknown or shows_keys(simulator)
        assert (row.woken_at is not None, row.warnings == []) == (known, known)
    assert wakes(simulator) <= (3 if not shows_keys(simulator) else 3 + len(unknown))


def test_a_worker_that_dies_with_the_wakes_of_many_leaves_each_to_its_own_turn(
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


def test_a_wake_waits_for_others_but_not_for_ever(
    hand: Services,
    fleet: Fleet,
    registered: dict[UUID, UUID],
    simulator: Simulator,
    sent: Sent,
    engine: Engine,
) -> None:
    first = fleet.agents[0]
    assert isinstance(go_on(hand, registered, first), Parked)
    sent.take()
    come_due(engine, first)
    publish_due(engine, sent)
    assert [task_id for _, _, task_id in sent.take()] == [str(registered[first])]
    assert isinstance(go_on(hand, registered, first), Parked)
    come_due(engine, first)
    publish_due(engine, sent)
    began = "UPDATE provisioner.job_agents SET started_at = now() - make_interval(secs => :s)"
    execute(engine, f"{began} WHERE agent_id = :id", s=CROWD_PATIENCE_S, id=first)
    assert wakes(simulator) == 0
    assert go_on(hand, registered, first) == Ended("succeeded")
    assert wakes(simulator) == 1


def come_due(engine: Engine, agent_id: UUID) -> None:
    """The time has come at which a parked wake looks by itself."""
    due = "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE agent_id = :id AND phase = 'wake'"
    assert execute(engine, due, id=agent_id) == 1
