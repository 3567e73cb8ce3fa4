"""The words that rows hold are declared once, and the tables' CHECKs take the same ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import pytest

from models import job_agents, jobs, roll_outs
from tests.rows import HANDLERS
from worker.errors import PermanentError, ProvisionerError, TransientError
from worker.gateway import errors
from worker.jobs import states
from worker.jobs.retry_policy import GatewayGivenUpError
from worker.jobs.states import WAITS, AgentOutcome, ReasonCode, Step, code_of
from worker.workspace.rendering import OVERRIDE_COLUMNS


def test_the_tables_take_the_statuses_that_workers_know() -> None:
    assert jobs.JOB_STATUSES == states.JOB_STATUSES
    assert job_agents.AGENT_STATUSES == states.AGENT_STATUSES
    assert tuple(states.RolloutState) == roll_outs.ROLL_OUT_STATES
    assert set(states.OPEN_STATUSES) < set(states.JOB_STATUSES)
    assert set(states.OPEN_AGENT_STATUSES) < set(states.AGENT_STATUSES)


@pytest.mark.parametrize("words", [Step, AgentOutcome, ReasonCode])
def test_a_code_is_its_name_in_small_letters(words: type[StrEnum]) -> None:
    assert [word.value for word in words] == [word.name.lower() for word in words]
    assert all(re.fullmatch(r"[a-z_]+", word) for word in words)


def test_an_outcome_is_no_step() -> None:
    assert not set(Step) & set(AgentOutcome)


def kinds_of(error: type[ProvisionerError]) -> Iterator[type[ProvisionerError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds_of(kind)


def test_an_error_that_may_pass_has_the_code_of_a_wait_and_others_have_that_of_an_end() -> None:
    assert HANDLERS  # all that a job may meet is imported
    coded = {kind: ReasonCode(kind.reason_code) for kind in kinds_of(ProvisionerError) if kind.reason_code}
    assert coded[errors.RateLimited] == ReasonCode.RATE_LIMITED
    assert coded[errors.WrongToken] == ReasonCode.GATEWAY_REFUSED
    assert coded[GatewayGivenUpError] == ReasonCode.GATEWAY_UNREACHABLE
    for kind, code in coded.items():
        assert issubclass(kind, TransientError) == (code in WAITS), kind
    for outage in errors.OUTAGES:
        assert coded[outage] == ReasonCode.WAITING_FOR_GATEWAY


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), "internal_error"),
        (TransientError("no answer"), "transient_error"),
        (PermanentError("no"), "permanent_error"),
        (PermanentError("no", reason_code=ReasonCode.NO_TOKEN), "no_token"),
    ],
)
def test_an_error_without_a_code_of_its_own_has_a_general_one(error: Exception, code: str) -> None:
    assert code_of(error) == code


def test_each_column_with_a_template_has_a_code() -> None:
    assert {f"broken_{column}" for column in OVERRIDE_COLUMNS.values()} <= set(ReasonCode)
