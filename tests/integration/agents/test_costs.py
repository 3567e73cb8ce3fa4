"""What the first provision of one agent costs: calls to its gateway, statements, messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event

from tests.integration.agents.fleet import Fleet, seed_fleet
from tests.integration.conftest import Sent
from tests.rows import execute_agent_row
from worker.jobs.executor import Ended
from worker.jobs.intake import accept_agent_job
from worker.jobs.retry_policy import Snooze
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Late
from worker.roster.writer import write_roster
from worker.runtime.services import Services

TOKEN = "the-gateways-own-token"
CALLS: Mapping[str, Mapping[str, int]] = {
    "2026.2.12": {
        "agents.files.list": 1,
        "agents.files.set": 8,
        "agents.files.get": 1,
        "sessions.patch": 1,
        "chat.send": 1,
    },
    "2026.9.6": {
        "agents.files.list": 1,
        "agents.files.set": 6,
        "agents.files.get": 1,
        "cron.list": 1,
        "cron.scratch.set": 1,
        "sessions.patch": 1,
        "chat.send": 1,
    },
}
"""In the executions of the agent's own row. A roster write serves all rows that wait for it: it reads the
roster, patches it and reads it back."""
STATEMENTS = {"before the roster": 11, "after it": 18}
"""Upper limits; BEGIN and COMMIT count only in ROUND_TRIPS. Among many agents (worker.agents.wake_barrier)
one more execution, for the wake alone, comes on top."""
ROUND_TRIPS = {"before the roster": 17, "after it": 28}


@pytest.fixture(params=sorted(CALLS))
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(request.param, token=TOKEN, state_dir=tmp_path / "gateway", reply="OK") as simulator:
        yield simulator


@pytest.fixture
def fleet(engine: Engine, simulator: Simulator) -> Fleet:
    return seed_fleet(engine, url=simulator.url, token=TOKEN)


@contextmanager
def counted(engine: Engine) -> Iterator[Counter[str]]:
    """Counts statements, and transactions by their end."""
    counts: Counter[str] = Counter()

    def statement(*_: Any) -> None:
        counts["statements"] += 1

    def transaction(connection: Any) -> None:
        """SQLAlchemy tells of those too that are one statement, of which Postgres hears nothing."""
        counts["transactions"] += not connection.connection.dbapi_connection.autocommit

    listeners = [("after_cursor_execute", statement), ("commit", transaction), ("rollback", transaction)]
    for name, listener in listeners:
        event.listen(engine, name, listener)
    try:
        yield counts
    finally:
        for name, listener in listeners:
            event.remove(engine, name, listener)


def test_a_first_provision_asks_no_more_of_anybody_than_it_must(
    hands: Callable[..., Services], engine: Engine, fleet: Fleet, simulator: Simulator, sent: Sent
) -> None:
    hand, job_id = hands(retry_inline_s=15, lease_s=60), uuid4()  # no lease is old enough to be renewed
    arguments = {"agent_id": str(fleet.agent_id)}
    with counted(engine) as before:
        accept_agent_job(engine, "provision_agent", str(job_id), (), arguments)
        assert isinstance(execute_agent_row(hand, job_id, fleet.agent_id, "provision_agent"), Snooze)
    assert [name for name, _, _ in sent.take()] == ["tasks.write_roster"]
    asked = Counter(call.method for call in simulator.calls)
    write_roster(hand, fleet.gateway_id)
    assert [name for name, _, _ in sent.take()] == ["tasks.provision_agent"]
    written = Counter(call.method for call in simulator.calls) - asked
    assert written["config.patch"] == 1
    assert written["config.get"] == 2
    with counted(engine) as after:
        accept_agent_job(engine, "provision_agent", str(job_id), (), arguments)
        assert execute_agent_row(hand, job_id, fleet.agent_id, "provision_agent") == Ended("succeeded")
    assert sent.take() == []
    calls = Counter(call.method for call in simulator.calls) - written - asked
    calls.pop("connect", None)
    calls["cron.list"] = min(calls["cron.list"], 1)  # again, where the automation is not there yet
    assert +calls == CALLS[simulator.release.name]
    for name, counts in (("before the roster", before), ("after it", after)):
        assert counts["statements"] <= STATEMENTS[name], (name, counts)
        assert counts["statements"] + 2 * counts["transactions"] <= ROUND_TRIPS[name], (name, counts)


@pytest.mark.parametrize("simulator", ["2026.9.6"], indirect=True)
def test_no_file_waits_for_the_answer_to_another(
    hands: Callable[..., Services], engine: Engine, fleet: Fleet, simulator: Simulator
) -> None:
    """The one with the token excepted, which is the last."""
    hand, job_id, arguments = hands(retry_inline_s=15), uuid4(), {"agent_id": str(fleet.agent_id)}
    accept_agent_job(engine, "provision_agent", str(job_id), (), arguments)
    assert isinstance(execute_agent_row(hand, job_id, fleet.agent_id, "provision_agent"), Snooze)
    write_roster(hand, fleet.gateway_id)
    files = CALLS[simulator.release.name]["agents.files.set"]
    simulator.faults.schedule(Fault(Late(behind=files - 2), "agents.files.set"))
    accept_agent_job(engine, "provision_agent", str(job_id), (), arguments)
    assert execute_agent_row(hand, job_id, fleet.agent_id, "provision_agent") == Ended("succeeded")
    assert sum(call.method == "agents.files.set" for call in simulator.calls) == files
