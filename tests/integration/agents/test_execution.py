"""Every outcome of an execution ends or parks its row, and puts agents.status right (rules.md 38, 44, 45)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import (
    Fleet,
    agent_row,
    execute,
    insert_job,
    job,
    job_agent,
    one,
    seed_fleet,
)
from tests.rows import HANDLERS, execute_agent_row
from worker.database_errors import DatabaseNotNow, Meaning
from worker.errors import PermanentError, TransientError
from worker.gateway.errors import (
    BadAnswer,
    CallTimedOut,
    ConnectionLost,
    GatewayRestarting,
    GatewaySilent,
    GatewayUnreachable,
    InvalidConfig,
    PairingRequired,
    PermanentGatewayError,
    RateLimited,
    StaleConfig,
    TransientGatewayError,
    Unavailable,
    UnknownAgent,
    UnsupportedFile,
    WrongToken,
)
from worker.jobs.executor import Ended
from worker.jobs.intake import Accepted, accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, code_of
from worker.jobs.store.job_agents import Claim, advance, finish
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.runtime.services import Services
from worker.shutdown_flag import shutting_down

Handler = Callable[[Services, Claim, list[str]], Snooze | None]


@pytest.fixture
def fleet(engine: Engine) -> Fleet:
    return seed_fleet(engine)


@pytest.fixture
def use_handler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], None]:
    """Registers another handler for provision jobs: the tests are about what its outcome leads to."""

    def put(handler: Handler) -> None:
        monkeypatch.setitem(HANDLERS, "provision_agent", handler)

    return put


@pytest.fixture
def begin(engine: Engine) -> Callable[[Fleet], UUID]:
    """Enqueue a job for the fleet's first agent, as far as its row."""

    def enqueue(fleet: Fleet) -> UUID:
        key = uuid4()
        accepted = accept_agent_job(
            engine, "provision_agent", str(key), (), {"agent_id": str(fleet.agent_id)}
        )
        assert isinstance(accepted, Accepted)
        return key

    return enqueue


def raising(error: Exception, before: str | None = None) -> Handler:
    """A handler that takes the agent over, as a provision does, adds a warning and then fails."""

    def handler(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
        warnings.append("noted before")
        if before is not None:
            with services.engine.begin() as connection:
                advance(connection, held, "intent", lease_s=5, status_before=before)
            execute(
                services.engine,
                "UPDATE agents SET status = 'provisioning', provision_action = 'provision' WHERE id = :id",
                id=held.agent_id,
            )
        raise error

    return handler


PERMANENT = [
    PermanentError("x"),
    WrongToken("x"),
    PermanentGatewayError("x"),
    PairingRequired("x"),
    InvalidConfig("x"),
    UnsupportedFile("x"),
    UnknownAgent("x"),
    BadAnswer("x"),
]
OUTAGE = [
    GatewayUnreachable("x"),
    GatewayRestarting("x"),
    ConnectionLost("x"),
    GatewaySilent("x", sent=True),
    Unavailable("x"),
]
OF_THE_CALL = [
    CallTimedOut("x", sent=True),
    TransientGatewayError("x"),
    StaleConfig("x"),
    RateLimited("x"),
    TransientError("x"),
]


def _named(error: Exception) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", PERMANENT, ids=_named)
def test_what_is_permanent_ends_the_job_with_its_sentence(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any, error: Exception
) -> None:
    use_handler(raising(error, before="offline"))
    key = begin(fleet)
    assert execute_agent_row(hands(), key, fleet.agent_id) == Ended("failed", "X")
    assert (job(engine, key).status, job(engine, key).error) == ("failed", "X")
    assert job(engine, key).reason_code == job_agent(engine, key).reason_code == code_of(error)
    assert job(engine, key).warnings == job_agent(engine, key).warnings == ["noted before"]
    assert (agent_row(engine, fleet.agent_id).status, job_agent(engine, key).status) == ("offline", "failed")


@pytest.mark.parametrize("error", OUTAGE, ids=_named)
def test_an_outage_parks_the_row_and_is_noted_of_the_gateway(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any, error: Exception
) -> None:
    use_handler(raising(error, before="offline"))
    key = begin(fleet)
    outcome = execute_agent_row(hands(), key, fleet.agent_id)
    assert isinstance(outcome, Snooze)
    row = job_agent(engine, key)
    assert (row.status, row.lease_until, row.published_at, row.reason) == ("running", None, None, "x")
    assert row.reason_code == "waiting_for_gateway"
    assert (job(engine, key).status, agent_row(engine, fleet.agent_id).status) == ("running", "provisioning")
    state = one(engine, "SELECT * FROM provisioner.gateway_states")
    assert (state.gateway_id, state.last_error) == (fleet.gateway_id, "x")
    assert state.down_since is not None


@pytest.mark.parametrize("error", OF_THE_CALL, ids=_named)
def test_what_is_transient_for_the_call_parks_the_row_and_leaves_the_gateway_up(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any, error: Exception
) -> None:
    use_handler(raising(error))
    key = begin(fleet)
    outcome = execute_agent_row(hands(), key, fleet.agent_id)
    assert isinstance(outcome, Snooze)
    assert outcome.wait_s is not None
    assert 0.5 < outcome.wait_s < 1
    assert job_agent(engine, key).reason_code == code_of(error)
    assert one(engine, "SELECT count(*) FROM provisioner.gateway_states")[0] == 0


def test_a_time_that_the_gateway_asks_for_is_kept(
    hands: Any, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(RateLimited("x", retry_after_s=40)))
    outcome = execute_agent_row(hands(), begin(fleet), fleet.agent_id)
    assert isinstance(outcome, Snooze)
    assert outcome.wait_s is not None
    assert outcome.wait_s >= 40


@pytest.mark.parametrize("error", [GatewayRestarting, RateLimited])
def test_no_gateway_has_a_job_wait_without_end(
    hands: Any, fleet: Fleet, begin: Any, use_handler: Any, error: type[TransientError]
) -> None:
    use_handler(raising(error("x", retry_after_s=86_400)))
    outcome = execute_agent_row(hands(), begin(fleet), fleet.agent_id)
    assert isinstance(outcome, Snooze)
    assert outcome.wait_s is not None
    assert outcome.wait_s <= 60


def test_what_stays_transient_for_the_whole_budget_ends_with_the_last_error(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(TransientGatewayError("the server is busy"), before="online"))
    key = begin(fleet)
    assert isinstance(execute_agent_row(hands(), key, fleet.agent_id), Snooze)
    execute(
        engine,
        "UPDATE provisioner.job_agents SET failing_since = now() - interval '31 s', next_attempt_at = now()",
    )
    publish_due(engine, lambda *_: None)
    assert execute_agent_row(hands(), key, fleet.agent_id) == Ended(
        "failed", "Given up after 30 seconds: the server is busy"
    )
    assert job(engine, key).reason_code == "retries_exhausted"
    assert agent_row(engine, fleet.agent_id).status == "online"


def test_a_gateway_that_was_away_for_the_whole_budget_fails_its_jobs(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(GatewayUnreachable("connection refused"), before="offline"))
    key = begin(fleet)
    services = hands(retry_timeout_s=600)
    execute_agent_row(services, key, fleet.agent_id)
    execute(
        engine,
        "UPDATE provisioner.gateway_states SET down_since = now() - interval '601 s',"
        " last_failure_at = now() - interval '10 s'",
    )
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now()")
    publish_due(engine, lambda *_: None)
    assert execute_agent_row(services, key, fleet.agent_id) == Ended(
        "failed", "The gateway was unreachable for 10 minutes. Last error: connection refused"
    )
    assert job(engine, key).reason_code == "gateway_unreachable"
    assert agent_row(engine, fleet.agent_id).status == "offline"


def test_a_fault_of_our_own_ends_the_job_and_its_text_stays_in_the_log(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    use_handler(raising(ZeroDivisionError("a secret")))
    key = begin(fleet)
    reason = "Internal error (ZeroDivisionError): see the worker's log of this job."
    assert execute_agent_row(hands(), key, fleet.agent_id) == Ended("failed", reason)
    assert (job(engine, key).status, job(engine, key).error) == ("failed", reason)
    assert caplog.messages == ["failed by a fault of our own"]
    assert "ZeroDivisionError: a secret" in caplog.text


def not_now() -> DatabaseNotNow:
    return DatabaseNotNow(
        Meaning("a right is missing", "grant it"), Exception("permission denied for table x")
    )


def test_a_row_that_the_database_would_not_serve_is_given_back_and_says_why(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(not_now()))
    key = begin(fleet)
    with pytest.raises(DatabaseNotNow):
        execute_agent_row(hands(), key, fleet.agent_id)
    row = job_agent(engine, key)
    assert (row.status, row.lease_until, row.crashes, row.tries) == ("running", None, 0, 0)
    assert row.reason == (
        "waiting for the database: a right is missing (permission denied for table x): grant it"
    )
    assert row.next_attempt_at is not None


def test_where_the_jobs_table_cannot_be_written_the_row_is_left_to_its_lease(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    def lock_the_jobs_table(*_: Any) -> None:
        execute(engine, "ALTER TABLE provisioner.job_agents RENAME TO elsewhere")
        raise not_now()

    use_handler(lock_the_jobs_table)
    key = begin(fleet)
    try:
        with pytest.raises(DatabaseNotNow, match="permission denied for table x"):
            execute_agent_row(hands(), key, fleet.agent_id)
    finally:
        execute(engine, "ALTER TABLE provisioner.elsewhere RENAME TO job_agents")
    row = job_agent(engine, key)
    assert (row.status, row.lease_until is not None) == ("running", True)
    assert row.next_attempt_at == row.lease_until


def test_a_worker_that_lost_its_lease_ends_nothing(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(LeaseLostError("taken over")))
    key = begin(fleet)
    assert execute_agent_row(hands(), key, fleet.agent_id) is NotClaimed.NOTHING_TO_DO
    assert job(engine, key).status == "running"


@pytest.mark.parametrize("end", [PermanentError("x"), TransientError("x"), None], ids=str)
def test_the_end_of_a_worker_whose_row_was_taken_over_meanwhile_is_dropped(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any, end: Exception | None
) -> None:
    def overtaken(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
        execute(services.engine, "UPDATE provisioner.job_agents SET generation = generation + 1")
        if end is not None:
            raise end
        return Snooze("x", 1)

    use_handler(overtaken)
    key = begin(fleet)
    assert execute_agent_row(hands(), key, fleet.agent_id) is NotClaimed.NOTHING_TO_DO
    row = job_agent(engine, key)
    assert (row.status, row.generation, row.reason) == ("running", 2, None)


@pytest.mark.parametrize(
    ("found", "restored"),
    [
        ("offline", "offline"),
        ("online", "online"),
        ("provisioning", "offline"),
        ("updating", "offline"),
    ],
)
def test_a_failure_gives_the_agent_the_status_back_that_it_had(
    hands: Any, engine: Engine, begin: Any, use_handler: Any, found: str, restored: str
) -> None:
    fleet = seed_fleet(engine, agent={"status": found})
    use_handler(raising(PermanentError("x"), before=found))
    execute_agent_row(hands(), begin(fleet), fleet.agent_id)
    row = agent_row(engine, fleet.agent_id)
    assert (row.status, row.provision_action) == (restored, None)


def test_a_status_that_somebody_else_set_meanwhile_is_left_alone(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    def overruled(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
        try:
            raising(PermanentError("x"), before="offline")(services, held, warnings)
        finally:
            execute(services.engine, "UPDATE agents SET status = 'retired'")
        return None

    use_handler(overruled)
    execute_agent_row(hands(), begin(fleet), fleet.agent_id)
    assert agent_row(engine, fleet.agent_id).status == "retired"


@pytest.mark.parametrize("found", ["provisioning", "updating"])
def test_an_agent_refused_at_first_sight_is_not_left_in_provisioning(
    hands: Any, engine: Engine, begin: Any, found: str
) -> None:
    """A service that marks the agent itself before it enqueues must not find it so for ever."""
    fleet = seed_fleet(engine, url="", agent={"status": found, "provision_action": "provision"})
    outcome = execute_agent_row(hands(), begin(fleet), fleet.agent_id)
    assert isinstance(outcome, Ended)
    row = agent_row(engine, fleet.agent_id)
    assert (row.status, row.provision_action) == ("offline", None)


def test_a_cancelled_job_ends_before_its_work_begins(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(AssertionError("must not run")))
    key = begin(fleet)
    execute(engine, "UPDATE provisioner.jobs SET cancel_requested_at = now()")
    assert execute_agent_row(hands(), key, fleet.agent_id) == Ended("cancelled", "Cancelled on request.")
    assert (job(engine, key).status, job(engine, key).reason_code) == ("cancelled", "cancelled")


def test_a_job_that_kills_its_workers_is_given_up(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process: nothing is written any more."""

    def die(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
        with services.engine.begin() as connection:
            advance(connection, held, "files", lease_s=5, status_before="offline")
        raise Killed

    use_handler(die)
    key = begin(fleet)
    services = hands(crash_limit=3)
    for _ in range(3):
        with pytest.raises(Killed):
            execute_agent_row(services, key, fleet.agent_id)
        execute(
            engine,
            "UPDATE provisioner.job_agents SET lease_until = now() - interval '1 s', next_attempt_at = now()",
        )
        assert publish_due(engine, lambda *_: None) == 1
    assert execute_agent_row(services, key, fleet.agent_id) == Ended(
        "failed", "Given up: 3 workers died while at work on it, in phase files."
    )
    assert job(engine, key).reason_code == "worker_crashes"


@pytest.mark.parametrize(
    ("handler", "tries"),
    [
        (raising(TransientError("no answer")), 2),
        (raising(GatewayUnreachable("connection refused")), 2),
        (lambda *_: Snooze("the gateway is down", 0.0), 0),
    ],
    ids=["failing", "gateway away", "waiting"],
)
def test_each_try_that_failed_is_counted_and_a_planned_wait_is_not(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any, handler: Any, tries: int
) -> None:
    use_handler(handler)
    key = begin(fleet)
    for _ in range(2):
        assert isinstance(execute_agent_row(hands(), key, fleet.agent_id), Snooze)
        execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now()")
        publish_due(engine, lambda *_: None)
    row = job_agent(engine, key)
    assert (row.tries, row.crashes) == (tries, 0)


def test_work_that_outlasts_its_lease_is_not_given_to_a_second_worker(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    def slow(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
        first, deadline = job_agent(engine, held.job_id).lease_until, time.monotonic() + 10
        while job_agent(engine, held.job_id).lease_until <= first + timedelta(seconds=0.6):
            assert publish_due(engine, lambda *_: None) == 0
            assert time.monotonic() < deadline
        raise PermanentError("done")

    use_handler(slow)
    key = begin(fleet)
    assert execute_agent_row(hands(lease_s=0.3), key, fleet.agent_id) == Ended("failed", "Done")
    assert job_agent(engine, key).generation == 1


def test_a_worker_that_is_told_to_stop_parks_what_it_waits_for_at_once(
    hands: Any, engine: Engine, fleet: Fleet, begin: Any, use_handler: Any
) -> None:
    use_handler(raising(GatewayUnreachable("connection refused")))
    key = begin(fleet)
    shutting_down.set()
    try:
        outcome = execute_agent_row(hands(), key, fleet.agent_id)
    finally:
        shutting_down.clear()
    assert outcome == Snooze(
        "this worker is stopping: connection refused", 0.0, code=ReasonCode.WORKER_STOPPING
    )
    assert publish_due(engine, lambda *_: None) == 1
    assert job_agent(engine, key).tries == 0
    assert one(engine, "SELECT count(*) FROM provisioner.gateway_states")[0] == 0


@pytest.mark.parametrize("end", [None, PermanentError("x")], ids=["well", "badly"])
def test_whoever_ends_calls_the_next_that_waits_for_the_agent(
    hands: Any, fleet: Fleet, begin: Any, use_handler: Any, sent: Any, end: Exception | None
) -> None:
    first, second = begin(fleet), begin(fleet)

    def handler(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
        assert execute_agent_row(services, second, fleet.agent_id) is NotClaimed.AGENT_BUSY
        assert sent.take() == []
        if end is not None:
            raise end
        with services.engine.begin() as connection:
            finish(connection, held, "succeeded", warnings=[], files={})
        return None

    use_handler(handler)
    assert isinstance(execute_agent_row(hands(), first, fleet.agent_id), Ended)
    assert sent.take() == [("tasks.provision_agent", {"agent_id": str(fleet.agent_id)}, str(second))]


def test_rows_by_insert_and_messages_share_one_execution(
    hands: Any, engine: Engine, fleet: Fleet, use_handler: Any
) -> None:
    use_handler(raising(PermanentError("x")))
    key = insert_job(engine, fleet.agent_id)
    publish_due(engine, lambda *_: None)
    accept_agent_job(engine, "provision_agent", str(key), (), {"agent_id": str(fleet.agent_id)})
    assert execute_agent_row(hands(), key, fleet.agent_id) == Ended("failed", "X")
