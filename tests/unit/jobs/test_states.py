"""The words that rows hold are declared once, and the tables' CHECKs take the same ones."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest

from models import job_agents, jobs
from worker.jobs import states
from worker.jobs.states import AgentOutcome, ReasonCode, Step


def test_the_tables_take_the_statuses_that_workers_know() -> None:
    assert jobs.JOB_STATUSES == states.JOB_STATUSES
    assert job_agents.AGENT_STATUSES == states.AGENT_STATUSES
    assert set(states.OPEN_STATUSES) < set(states.JOB_STATUSES)
    assert set(states.OPEN_AGENT_STATUSES) < set(states.AGENT_STATUSES)


@pytest.mark.parametrize("words", [Step, AgentOutcome, ReasonCode])
def test_a_code_is_its_name_in_small_letters(words: type[StrEnum]) -> None:
    assert [word.value for word in words] == [word.name.lower() for word in words]
    assert all(re.fullmatch(r"[a-z_]+", word) for word in words)


def test_an_outcome_is_no_step() -> None:
    assert not set(Step) & set(AgentOutcome)
