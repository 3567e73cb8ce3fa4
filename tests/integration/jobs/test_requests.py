"""A message becomes a job, once, whichever way and however often it was asked for (interfaces.md 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import pytest
from sqlalchemy import Engine, text

from tests.integration.agents.fleet import execute, insert_job, job, job_agent, one, seed_fleet
from worker.errors import PermanentError
from worker.jobs.intake import Accepted, Refused, accept_agent_job
from worker.jobs.requests import BadRequestError, EnsureBoardLead, ProvisionAgent, job_id
from worker.jobs.store.job_agents import Claim, claim
from worker.jobs.store.jobs import RequestConflictError, enqueue
from worker.jobs.store.retrying import retry

KIND = "provision_agent"


def receive(engine: Engine, task_id: str | UUID, *positional: Any, **arguments: Any) -> Accepted | Refused:
    """What a worker does first with a message."""
    return accept_agent_job(engine, KIND, str(task_id), positional, json.loads(json.dumps(arguments)))


def jobs_of(engine: Engine, agent_id: UUID) -> int:
    count: int = one(engine, "SELECT count(*) FROM provisioner.jobs WHERE agent_id = :id", id=agent_id)[0]
    return count


def test_a_message_becomes_a_job_with_its_options_and_where_it_belongs(engine: Engine) -> None:
    fleet = seed_fleet(engine)
    key = uuid4()
    accepted = receive(
        engine, key, agent_id=str(fleet.agent_id), wake=False, requested_by="billing", request_id="r-1"
    )
    assert accepted == Accepted(key, fleet.agent_id)
    row = job(engine, key)
    assert (row.kind, row.status, row.request_id, row.requested_by) == (KIND, "running", "r-1", "billing")
    assert (row.organization_id, row.gateway_id, row.board_id) == (
        fleet.organization_id,
        fleet.gateway_id,
        fleet.board_id,
    )
    assert row.options == {
        "user_id": None,
        "force_bootstrap": False,
        "reset_session": True,
        "wake": False,
        "deliver_wakeup": True,
    }
    assert (job_agent(engine, key).agent_name, job_agent(engine, key).status) == ("Agent 00", "pending")


def test_who_asked_is_kept_without_a_secret(engine: Engine) -> None:
    agent, asked_by = str(seed_fleet(engine).agent_id), "web, Authorization: Bearer q2v5hJMJ3C51gN8WCOWE"
    for arguments in ({"agent_id": agent}, {"agent_id": "none"}):
        key = uuid4()
        receive(engine, key, requested_by=asked_by, **arguments)
        assert job(engine, key).requested_by == "web, Authorization: Bearer <masked>"


def test_a_task_id_that_is_no_uuid_becomes_its_uuid5(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    expected = uuid5(NAMESPACE_URL, "nightly-7")
    for _ in range(2):
        assert receive(engine, "nightly-7", agent_id=str(agent_id)) == Accepted(expected, agent_id)
    assert jobs_of(engine, agent_id) == 1


def test_arguments_that_nobody_knows_are_ignored_with_a_warning(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    agent_id = seed_fleet(engine).agent_id
    accepted = receive(engine, uuid4(), agent_id=str(agent_id), new_option=1, another="x")
    assert isinstance(accepted, Accepted)
    assert "unknown arguments are ignored: another, new_option" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "tasks.provision_agent: agent_id is missing."),
        ({"agent_id": "bob"}, "tasks.provision_agent: agent_id must be a UUID, not 'bob'."),
        ({"agent_id": 7}, "tasks.provision_agent: agent_id must be a UUID, not 7."),
        ({"agent_id": None}, "tasks.provision_agent: agent_id must be a UUID, not None."),
        ({"agent_id": ["x"]}, "tasks.provision_agent: agent_id must be a UUID, not list."),
        (
            {"agent_id": str(uuid4()), "wake": "maybe", "user_id": "me"},
            "tasks.provision_agent: wake must be true or false, not 'maybe';"
            " user_id must be a UUID, not 'me'.",
        ),
        (
            {"agent_id": str(uuid4()), "request_id": 5},
            "tasks.provision_agent: request_id must be text, not 5.",
        ),
        (
            {"agent_id": str(uuid4()), "request_id": "a\x00b"},
            "tasks.provision_agent: request_id must be text without NUL characters, not 'a\\x00b'.",
        ),
        (
            {"agent_id": "x", "requested_by": "a\x00b", "a\x00\ud800": 1},
            "tasks.provision_agent: requested_by must be text without NUL characters, not 'a\\x00b';"
            " agent_id must be a UUID, not 'x'.",
        ),
        (
            {"agent_id": str(uuid4()), "webhook": "\ud800"},
            "tasks.provision_agent: webhook must be text without NUL characters, not '\\ud800'.",
        ),
    ],
)
def test_bad_arguments_end_the_job_with_a_sentence_that_names_them(
    engine: Engine, arguments: Mapping[str, Any], sentence: str
) -> None:
    key = uuid4()
    assert receive(engine, key, **arguments) == Refused(key, sentence)
    row = job(engine, key)
    assert (row.status, row.error, row.next_attempt_at) == ("failed", sentence, None)
    assert row.finished_at is not None
    assert receive(engine, key, **arguments) == Refused(key, None)


def test_positional_arguments_are_refused(engine: Engine) -> None:
    key = uuid4()
    refused = receive(engine, key, str(uuid4()))
    assert refused == Refused(key, "tasks.provision_agent: send keyword arguments, not positional ones.")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"agent_id": None}, "agent_id is missing"),
        ({"options": '{"wake": "maybe"}'}, "wake must be true or false, not 'maybe'"),
        ({"options": '{"user_id": 3}'}, "user_id must be a UUID, not 3"),
    ],
)
def test_a_bad_row_ends_with_a_sentence_too(
    engine: Engine, columns: Mapping[str, Any], sentence: str
) -> None:
    key = insert_job(engine, **{"agent_id": seed_fleet(engine).agent_id, **columns})
    assert receive(engine, key) == Refused(key, f"tasks.provision_agent: {sentence}.")
    assert (job(engine, key).status, job(engine, key).next_attempt_at) == ("failed", None)


@pytest.mark.parametrize("wake", ["9" * 5000, "[" * 5000 + "]" * 5000], ids=["long", "deep"])
def test_options_that_cannot_be_read_are_refused_and_hold_up_nobody(engine: Engine, wake: str) -> None:
    agent_id = seed_fleet(engine).agent_id
    key = insert_job(engine, agent_id, options=f'{{"wake": {wake}}}', request_id="one")
    again = receive(engine, uuid4(), agent_id=str(agent_id), request_id="one")
    assert "request_id 'one' was used before, with other options" in str(again)
    refused = receive(engine, key)
    assert isinstance(refused, Refused)
    assert "tasks.provision_agent: options cannot be read (" in str(refused.reason)
    kept = one(engine, "SELECT status, request_id FROM provisioner.jobs WHERE id = :id", id=key)
    assert tuple(kept) == ("failed", "one")
    with engine.begin() as connection, pytest.raises(PermanentError, match="options cannot be read"):
        retry(connection, key, requested_by=None)


@pytest.mark.parametrize("options", ["[1]", "null", '"x"'])
def test_options_that_are_no_object_are_those_of_a_request_without_any(engine: Engine, options: str) -> None:
    agent_id = seed_fleet(engine).agent_id
    key = insert_job(engine, agent_id, options=options, request_id="one")
    assert receive(engine, uuid4(), agent_id=str(agent_id), request_id="one") == Refused(key, None)


def test_options_that_are_no_object_are_ignored_with_a_warning(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    agent_id = seed_fleet(engine).agent_id
    key = insert_job(engine, agent_id, options="[1, 2]")
    assert receive(engine, key) == Accepted(key, agent_id)
    assert "unknown arguments are ignored: options" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            '{"keep_files": true}',
            "nothing was deleted, because there is no option keep_files: the options are",
        ),
        (
            '{"dry_run": true, "deleteFiles": false}',
            "no option deleteFiles, dry_run: the options are delete_f",
        ),
        ('"{\\"delete_files\\": false}"', "options must be an object, not str"),
        ("[]", "options must be an object, not list"),
    ],
)
def test_a_delete_whose_row_has_options_that_nobody_knows_deletes_nothing(
    engine: Engine, options: str, sentence: str
) -> None:
    agent = seed_fleet(engine).agent_id
    key = insert_job(engine, agent, kind="delete_agent", options=options)
    refused = accept_agent_job(engine, "delete_agent", str(key), (), {})
    assert isinstance(refused, Refused)
    assert sentence in (refused.reason or "")
    with engine.begin() as connection, pytest.raises(PermanentError, match="would be again"):
        retry(connection, key, requested_by=None)


def test_a_delete_takes_the_options_that_there_are(engine: Engine) -> None:
    agent = seed_fleet(engine).agent_id
    options = '{"delete_files": false, "delete_session": false, "delete_row": false, "gateway_id": null}'
    key = insert_job(engine, agent, kind="delete_agent", options=options)
    assert accept_agent_job(engine, "delete_agent", str(key), (), {}) == Accepted(key, agent)


def test_what_a_row_says_counts_and_not_what_its_message_says(engine: Engine) -> None:
    fleet = seed_fleet(engine, agents=2)
    key = insert_job(engine, fleet.agents[0], options='{"wake": false}')
    assert receive(engine, key, agent_id=str(fleet.agents[1])) == Accepted(key, fleet.agents[0])


def test_the_same_request_makes_one_job(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    first, second = uuid4(), uuid4()
    assert receive(engine, first, agent_id=str(agent_id), request_id="r") == Accepted(first, agent_id)
    assert receive(engine, second, agent_id=str(agent_id), request_id="r") == Refused(first, None)
    assert jobs_of(engine, agent_id) == 1


def test_a_request_id_counts_for_one_target(engine: Engine) -> None:
    fleet = seed_fleet(engine, agents=2)
    for agent_id in fleet.agents:
        accepted = receive(engine, uuid4(), agent_id=str(agent_id), request_id="nightly")
        assert isinstance(accepted, Accepted)


def test_a_request_id_counts_for_one_kind(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    provision, update, arguments = uuid4(), uuid4(), {"agent_id": str(agent_id), "request_id": "nightly"}
    assert receive(engine, provision, **arguments) == Accepted(provision, agent_id)
    assert accept_agent_job(engine, "update_agent", str(update), (), arguments) == Accepted(update, agent_id)
    copy = accept_agent_job(engine, "update_agent", str(uuid4()), (), arguments)
    assert copy == Refused(update, None)
    assert jobs_of(engine, agent_id) == 2


def test_the_same_request_id_with_other_options_is_refused_with_a_sentence(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    first, second = uuid4(), uuid4()
    receive(engine, first, agent_id=str(agent_id), request_id="r")
    refused = receive(engine, second, agent_id=str(agent_id), request_id="r", wake=False)
    sentence = f"request_id 'r' was used before, with other options, by job {first}: send a new request_id."
    assert refused == Refused(second, sentence)
    assert (job(engine, second).status, job(engine, second).error) == ("failed", sentence)
    assert job(engine, first).status == "running"


@pytest.mark.parametrize("given", ["{}", '{"wake": true, "spare": 1}'])
def test_what_a_row_leaves_out_has_its_default(engine: Engine, given: str) -> None:
    agent_id = seed_fleet(engine).agent_id
    key = insert_job(engine, agent_id, options=given)
    receive(engine, key)
    held = claim(engine, key, agent_id, KIND, lease_s=5)
    assert isinstance(held, Claim)
    assert held.options == ProvisionAgent(agent_id=agent_id).options()
    assert held.options["wake"] is True


def test_a_row_with_few_options_and_a_message_with_all_of_them_are_the_same_request(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    key = insert_job(engine, agent_id, request_id="r", options='{"wake": false}')
    assert receive(engine, uuid4(), agent_id=str(agent_id), request_id="r", wake=False) == Refused(key, None)
    other = receive(engine, uuid4(), agent_id=str(agent_id), request_id="r")
    assert isinstance(other, Refused)
    assert other.reason is not None
    assert f"by job {key}" in other.reason


def test_a_request_both_ways_at_once_from_many_threads_makes_one_job(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    together = Barrier(16)

    def by_message(_: int) -> UUID:
        together.wait()
        return receive(engine, uuid4(), agent_id=str(agent_id), request_id="r").job_id

    def by_row(_: int) -> None:
        together.wait()
        execute(
            engine,
            "INSERT INTO provisioner.jobs (id, kind, agent_id, request_id)"
            " VALUES (gen_random_uuid(), 'provision_agent', :agent_id, 'r') ON CONFLICT DO NOTHING",
            agent_id=agent_id,
        )

    with ThreadPoolExecutor(16) as pool:
        rows = [pool.submit(by_row, n) for n in range(8)]
        messages = [pool.submit(by_message, n) for n in range(8)]
        for row in rows:
            row.result(timeout=60)
        served = {message.result(timeout=60) for message in messages}
    assert jobs_of(engine, agent_id) == 1
    assert len(served) == 1


def test_a_copy_of_a_message_that_comes_at_the_same_time_makes_no_second_row(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    key = uuid4()
    together = Barrier(8)

    def deliver(_: int) -> Accepted | Refused:
        together.wait()
        return receive(engine, key, agent_id=str(agent_id))

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(deliver, range(8)))
    assert set(outcomes) == {Accepted(key, agent_id)}
    assert job_agent(engine, key).generation == 0


def test_our_own_enqueue_finds_the_job_of_an_equal_request(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    request = ProvisionAgent(agent_id=agent_id, request_id="r")
    with engine.begin() as connection:
        first = enqueue(connection, request)
        again = enqueue(connection, request)
        other = ProvisionAgent(agent_id=agent_id, request_id="r", wake=False)
        with pytest.raises(RequestConflictError, match=str(first.job_id)):
            enqueue(connection, other)
        assert connection.execute(text("SELECT count(*) FROM provisioner.jobs")).scalar_one() == 1
    assert first.created
    assert (again.created, again.job_id) == (False, first.job_id)


@pytest.mark.parametrize("profile", [{"a": float("nan")}, {"a": {"b": "\x00"}}, {"\ud800": 1}])
def test_a_profile_that_postgres_cannot_hold_is_named(profile: dict[str, Any]) -> None:
    arguments = {"board_id": str(uuid4()), "identity_profile": profile}
    with pytest.raises(
        BadRequestError, match="identity_profile must be text without NUL characters and finite numbers"
    ):
        EnsureBoardLead.parse(arguments)


def test_a_profile_that_is_too_deep_is_named() -> None:
    profile: dict[str, Any] = {}
    for _ in range(500):
        profile = {"a": profile}
    arguments = {"board_id": str(uuid4()), "identity_profile": profile}
    with pytest.raises(BadRequestError, match="50 levels deep"):
        EnsureBoardLead.parse(arguments)


def test_an_id_that_no_url_could_hold_has_its_job() -> None:
    assert job_id("\ud800") == job_id("\ud800") != job_id("\ud801")


def test_what_is_too_large_for_the_jobs_table_is_refused_all_the_same(engine: Engine) -> None:
    """An index takes 2,700 bytes of a name, and a row is not to hold a hundred thousand of them."""
    names = {f"argument {number}": number for number in range(5000)}
    long = "".join(str(uuid4()) for _ in range(500))
    refused = receive(engine, key := uuid4(), agent_id=str(uuid4()), request_id=long, **names, **{long: 1})
    assert isinstance(refused, Refused)
    row = one(
        engine, "SELECT status, error, request_id, options FROM provisioner.jobs WHERE id = :id", id=key
    )
    assert (row.status, row.request_id) == ("failed", None)
    assert "request_id must be of at most 500 characters, not 18000" in row.error
    assert len(row.options["arguments"]) == 100
