"""A job names a webhook of its organization, and whoever waits is told however the job ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event

from tests.integration.agents.fleet import execute, insert_job, job, one, seed_fleet
from tests.integration.conftest import Sent
from tests.integration.webhooks.conftest import Desk
from worker.jobs.intake import Refused, accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.requests import (
    BadRequestError,
    DeleteAgent,
    EnsureBoardLead,
    ProvisionAgent,
    ProvisionGatewayMain,
    Request,
    SyncGateway,
    SyncHeartbeats,
)
from worker.jobs.schedule_firing import fire_due
from worker.jobs.schedule_spec import ScheduleSpec
from worker.jobs.schedules import add, all_schedules
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.jobs import RequestConflictError, enqueue
from worker.jobs.store.retrying import retry
from worker.jobs.store.webhooks import retry_given_up
from worker.webhooks.registry import CannotChangeError, remove_webhook

URL = "https://hook.example/"
HOURLY = ScheduleSpec(every=timedelta(hours=1))


@pytest.fixture
def webhook(desk: Desk) -> UUID:
    return desk.add("ci", URL)


def told(engine: Engine, job_id: UUID) -> UUID | None:
    """The webhook that is told of the job's end."""
    with engine.connect() as connection:
        statement = f"SELECT webhook_id FROM provisioner.webhook_deliveries WHERE job_id = '{job_id}'"
        return connection.exec_driver_sql(statement).scalar_one_or_none()


def ask(engine: Engine, request: Request) -> UUID:
    with engine.begin() as connection:
        return enqueue(connection, request).job_id


def test_each_kind_of_request_finds_it_by_its_target(desk: Desk, engine: Engine, webhook: UUID) -> None:
    fleet = desk.fleet
    requests: Sequence[Request] = [
        ProvisionAgent(agent_id=fleet.agent_id, webhook="ci"),
        ProvisionGatewayMain(gateway_id=fleet.gateway_id, webhook="ci"),
        EnsureBoardLead(board_id=fleet.board_id, webhook="ci"),
        SyncGateway(gateway_id=fleet.gateway_id, board_id=fleet.board_id, webhook="ci"),
        SyncHeartbeats(gateway_id=fleet.gateway_id, webhook="ci"),
        DeleteAgent(agent_id=uuid4(), gateway_id=fleet.gateway_id, webhook="ci"),
    ]
    for request in requests:
        key = ask(engine, request)
        assert told(engine, key) == webhook, request.kind
        assert job(engine, key).webhook == "ci"
        assert "webhook" not in job(engine, key).options
    assert told(engine, ask(engine, ProvisionAgent(agent_id=fleet.agent_id))) is None


def test_without_one_a_request_costs_no_statement_more(desk: Desk, engine: Engine) -> None:
    statements: list[str] = []

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(engine, "after_cursor_execute", count)
    try:
        ask(engine, ProvisionAgent(agent_id=desk.fleet.agent_id))
    finally:
        event.remove(engine, "after_cursor_execute", count)
    assert len(statements) == 1


def test_a_name_that_the_organization_does_not_have_is_refused_before_anything_is_done(
    desk: Desk, engine: Engine, webhook: UUID
) -> None:
    stranger = seed_fleet(engine)
    agent_id, arguments = str(stranger.agent_id), {"webhook": "ci", "request_id": "r-1"}
    given = {"agent_id": agent_id, **arguments}
    refused = accept_agent_job(engine, "provision_agent", str(uuid4()), (), given)
    assert isinstance(refused, Refused)
    assert refused.reason == (
        "webhook: there is no webhook 'ci' in the organization of this job's agent:"
        " `provisioner webhook list` shows those there are."
    )
    row = job(engine, refused.job_id)
    assert (row.status, row.error, row.started_at) == ("failed", refused.reason, None)
    assert told(engine, refused.job_id) is None
    desk.add("ci", URL, stranger.organization_id)
    put_right = accept_agent_job(engine, "provision_agent", str(uuid4()), (), given)
    assert told(engine, put_right.job_id) not in (None, webhook), "the name of the request was free"
    with pytest.raises(BadRequestError, match="is not known: check agent_id, or give gateway_id"):
        ask(engine, DeleteAgent(agent_id=uuid4(), webhook="ci"))
    with pytest.raises(BadRequestError, match="is not known: check gateway_id"):
        ask(engine, SyncGateway(gateway_id=uuid4(), webhook="ci"))


@pytest.mark.parametrize("columns", [{"webhook": "ci"}, {"options": '{"webhook": "ci"}'}])
def test_a_row_names_it_by_its_column_or_among_its_options(
    desk: Desk, engine: Engine, webhook: UUID, columns: dict[str, Any]
) -> None:
    key = insert_job(engine, desk.fleet.agent_id, **columns)
    for _ in range(2):  # a message may come twice
        accept_agent_job(engine, "provision_agent", str(key), (), {})
    assert told(engine, key) == webhook
    unknown = insert_job(engine, desk.fleet.agents[1], webhook="nobody's")
    assert isinstance(accept_agent_job(engine, "provision_agent", str(unknown), (), {}), Refused)
    assert 'there is no webhook "nobody\'s"' in job(engine, unknown).error


def test_jobs_that_end_before_a_worker_begins_them_are_told_too(
    desk: Desk, engine: Engine, webhook: UUID, sent: Sent
) -> None:
    cancelled = insert_job(engine, desk.fleet.agent_id, webhook="ci")
    with engine.begin() as connection:
        assert cancel(connection, cancelled)
    unknown = insert_job(engine, desk.fleet.agent_id, webhook="ci", kind="adopt_everything")
    publish_due(engine, sent)
    wrong = uuid4()
    arguments = {"agent_id": str(desk.fleet.agent_id), "wake": "perhaps", "webhook": "ci"}
    accept_agent_job(engine, "provision_agent", str(wrong), (), arguments)
    for key, status in ((cancelled, "cancelled"), (unknown, "failed"), (wrong, "failed")):
        assert (job(engine, key).status, told(engine, key)) == (status, webhook)
    odd: list[dict[str, Any]] = [
        {"webhook": 7},
        {"webhook": "a\x00b"},
        {"webhook": "x" * 501},
        {"agent_id": []},
    ]
    for nonsense in odd:
        key = uuid4()
        accept_agent_job(engine, "provision_agent", str(key), (), {**arguments, **nonsense})
        assert (job(engine, key).status, told(engine, key)) == ("failed", None)


def test_the_same_request_with_another_webhook_is_another_request(
    desk: Desk, engine: Engine, webhook: UUID
) -> None:
    desk.add("other", URL)
    request = ProvisionAgent(agent_id=desk.fleet.agent_id, webhook="ci", request_id="r-1")
    first = ask(engine, request)
    assert ask(engine, request) == first
    with pytest.raises(RequestConflictError):
        ask(engine, request.model_copy(update={"webhook": "other"}))


def test_a_retry_tells_the_same_webhook(desk: Desk, engine: Engine, webhook: UUID) -> None:
    failed = desk.end(desk.begin(webhook="ci"), "failed")
    with engine.begin() as connection:
        again = retry(connection, failed, requested_by="cli")
    assert told(engine, again) == webhook


def test_a_schedule_names_one_for_each_of_its_syncs_and_keeps_it(
    desk: Desk, engine: Engine, webhook: UUID
) -> None:
    request = SyncGateway(gateway_id=desk.fleet.gateway_id, webhook="ci")
    with engine.begin() as connection:
        with pytest.raises(BadRequestError, match="there is no webhook 'nobodys'"):
            add(connection, request.model_copy(update={"webhook": "nobodys"}), HOURLY)
        key = add(connection, request, HOURLY).id
    execute(engine, "UPDATE provisioner.sync_schedules SET next_run_at = now()")
    assert fire_due(engine) == 1
    assert told(engine, one(engine, "SELECT id FROM provisioner.jobs").id) == webhook
    with engine.begin() as connection:
        assert all_schedules(connection)[0].id == key
        with pytest.raises(CannotChangeError, match=f"Schedule {key} names the webhook"):
            remove_webhook(connection, webhook)


def test_it_is_removed_with_what_it_was_not_told_and_jobs_go_on(
    desk: Desk, engine: Engine, webhook: UUID
) -> None:
    held = desk.begin(webhook="ci")
    with engine.begin() as connection:
        remove_webhook(connection, webhook)
    desk.end(held)
    desk.send()
    assert (job(engine, held.job_id).status, told(engine, held.job_id)) == ("succeeded", None)


def test_what_was_given_up_is_sent_again_when_somebody_asks(
    desk: Desk, engine: Engine, webhook: UUID
) -> None:
    ended = desk.end(desk.begin(webhook="ci"))
    execute(engine, "UPDATE provisioner.webhook_deliveries SET status = 'failed', attempts = 8")
    execute(engine, "UPDATE provisioner.webhooks SET failures = 8, not_before = now() + interval '5 minutes'")
    with engine.begin() as connection:
        assert retry_given_up(connection, webhook) == 1
    row = desk.delivery(ended)
    assert (row.status, row.attempts, row.failures, row.pause_s <= 0) == ("pending", 0, 0, True)
