"""Arguments: what is taken, and the one sentence for what is not."""

from __future__ import annotations

import re
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.jobs.requests import BadRequestError, EnsureBoardLead, ProvisionAgent, job_id

AGENT = UUID("11111111-1111-4111-8111-111111111111")

anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("a-1\x00\ud800é", max_size=40)
    | st.lists(st.integers())
)


@pytest.mark.parametrize("given_as", [AGENT, str(AGENT), str(AGENT).upper(), AGENT.hex])
def test_an_agent_alone_is_a_whole_request(given_as: object) -> None:
    request, unknown = ProvisionAgent.parse({"agent_id": given_as})
    assert (request.target_id, unknown) == (AGENT, [])
    assert request.options() == {
        "user_id": None,
        "force_bootstrap": False,
        "reset_session": True,
        "wake": True,
        "deliver_wakeup": True,
    }


def test_arguments_of_a_newer_version_are_named_and_ignored() -> None:
    _, unknown = ProvisionAgent.parse({"agent_id": AGENT, "zeal": 1, "colour": None})
    assert unknown == ["colour", "zeal"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "agent_id is missing"),
        ({"agent_id": "bob"}, "agent_id must be a UUID, not 'bob'"),
        ({"agent_id": ""}, "agent_id must be a UUID, not ''"),
        ({"agent_id": 1.5}, "agent_id must be a UUID, not 1.5"),
        ({"agent_id": {"id": 1}}, "agent_id must be a UUID, not dict"),
        ({"agent_id": "x" * 500}, f"agent_id must be a UUID, not '{'x' * 56}..."),
        ({"agent_id": AGENT, "user_id": "me"}, "user_id must be a UUID, not 'me'"),
        ({"agent_id": AGENT, "wake": "maybe"}, "wake must be true or false, not 'maybe'"),
        ({"agent_id": AGENT, "wake": None}, "wake must be true or false, not None"),
        ({"agent_id": AGENT, "wake": 7}, "wake must be true or false, not 7"),
        ({"agent_id": AGENT, "request_id": 7}, "request_id must be text, not 7"),
        (
            {"agent_id": AGENT, "request_id": "x" * 501},
            "request_id must be of at most 500 characters, not 501",
        ),
        ({"agent_id": AGENT, "requested_by": ["me"]}, "requested_by must be text, not list"),
        (
            {"agent_id": AGENT, "overwrite_files": ["USER.md", "SOUL.md"], "keep_files": ["SOUL.md"]},
            "overwrite_files and keep_files both name SOUL.md",
        ),
    ],
)
def test_every_fault_is_a_sentence_that_names_the_argument(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ProvisionAgent.parse(arguments)
    assert str(caught.value) == f"tasks.provision_agent: {fault}."


@pytest.mark.parametrize("profile", [{"role": "a\x00b"}, {"a\ud800": "b"}, {"role": ["a", {"b": "\x00"}]}])
def test_a_profile_that_postgres_cannot_hold_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="identity_profile must be text without NUL characters"):
        EnsureBoardLead.parse({"board_id": AGENT, "identity_profile": profile})


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(BadRequestError) as caught:
        ProvisionAgent.parse({"wake": "x", "reset_session": "z"})
    assert str(caught.value) == (
        "tasks.provision_agent: agent_id is missing; reset_session must be true or false, not 'z';"
        " wake must be true or false, not 'x'."
    )


@settings(max_examples=60, deadline=None)
@given(
    arguments=st.dictionaries(st.sampled_from(["agent_id", "user_id", "wake", "request_id", "x"]), anything)
)
def test_whatever_comes_is_a_request_or_one_line_of_refusal(arguments: dict[str, Any]) -> None:
    refusal = None
    try:
        request, _ = ProvisionAgent.parse(arguments)
    except BadRequestError as error:
        refusal = str(error)
    if refusal is None:
        assert isinstance(request.target_id, UUID)
    else:
        assert re.fullmatch(r"tasks\.provision_agent: .+\.", refusal)


def test_a_task_id_is_the_jobs_id_or_its_uuid5() -> None:
    key = uuid4()
    assert job_id(str(key)) == key
    assert job_id("nightly") == uuid5(NAMESPACE_URL, "nightly")
    assert job_id("") == uuid5(NAMESPACE_URL, "")
