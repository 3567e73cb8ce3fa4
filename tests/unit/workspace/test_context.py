from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tests.unit.workspace.samples import AGENT_ID, BASE_URL, BOARD_ID, GATEWAY_ID
from worker.errors import PermanentError
from worker.workspace.context import (
    AgentFacts,
    BoardFacts,
    GatewayFacts,
    UserFacts,
    board_agent_context,
    main_agent_context,
    profile_fields,
)
from worker.workspace.display_text import clean
from worker.workspace.tokens import PLACEHOLDER

GATEWAY = GatewayFacts(GATEWAY_ID, "Office", "ws://gateway", "~/.openclaw/")
AGENT = AgentFacts(AGENT_ID, "Ada", True, {"role": " Editor ", "emoji": "", "verbosity": ["a", " ", "b "]})
BOARD = BoardFacts(BOARD_ID, "Launch", "goal", "Ship", {"n": 1}, datetime(2027, 3, 1, 9), True)
USER = UserFacts("Grace Hopper", "Grace Brewster", "she", "UTC", "notes", "context")


def test_board_agent_knows_every_name_of_the_rule() -> None:
    assert board_agent_context(AGENT, BOARD, GATEWAY, USER, BASE_URL + "/") == {
        "agent_name": "Ada",
        "agent_id": AGENT_ID,
        "board_id": BOARD_ID,
        "board_name": "Launch",
        "board_type": "goal",
        "board_objective": "Ship",
        "board_success_metrics": '{"n": 1}',
        "board_target_date": "2027-03-01T09:00:00",
        "board_goal_confirmed": "true",
        "is_board_lead": "true",
        "session_key": f"agent:lead-{BOARD_ID}:main",
        "workspace_path": f"~/.openclaw/workspace-lead-{BOARD_ID}",
        "workspace_root": "~/.openclaw/",
        "base_url": BASE_URL,
        "auth_token": PLACEHOLDER,
        "main_session_key": f"agent:mc-gateway-{GATEWAY_ID}:main",
        "user_name": "Grace Hopper",
        "user_preferred_name": "Grace",
        "user_pronouns": "she",
        "user_timezone": "UTC",
        "user_notes": "notes",
        "user_context": "context",
        "identity_role": "Editor",
        "identity_communication_style": "direct, concise, practical",
        "identity_emoji": ":gear:",
        "identity_autonomy_level": "",
        "identity_verbosity": "a, b",
        "identity_output_format": "",
        "identity_update_cadence": "",
        "identity_purpose": "",
        "identity_personality": "",
        "identity_custom_instructions": "",
    }


def test_main_agent_lacks_what_is_a_boards() -> None:
    board = board_agent_context(AGENT, BOARD, GATEWAY, USER, BASE_URL)
    main = main_agent_context(AGENT, GATEWAY, USER, BASE_URL)
    missing = {name for name in board if name.startswith("board_")}
    assert board.keys() - main.keys() == missing | {"is_board_lead", "workspace_path", "main_session_key"}
    assert main.keys() <= board.keys()
    assert main["session_key"] == f"agent:mc-gateway-{GATEWAY_ID}:main"


def test_blank_facts_become_blank_strings() -> None:
    context = board_agent_context(AgentFacts(AGENT_ID, ""), BoardFacts(BOARD_ID, ""), GATEWAY, None, BASE_URL)
    assert context["board_success_metrics"] == "{}"
    assert (context["board_target_date"], context["board_goal_confirmed"]) == ("", "false")
    assert {value for name, value in context.items() if name.startswith("user_")} == {""}


@pytest.mark.parametrize("preferred", [None, "", "   ", "\n"])
def test_a_blank_preferred_name_is_blank(preferred: str | None) -> None:
    context = main_agent_context(AGENT, GATEWAY, replace(USER, preferred_name=preferred), BASE_URL)
    assert context["user_preferred_name"] == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "Generalist"),
        ("", "Generalist"),
        ("  ", "Generalist"),
        ([], "Generalist"),
        ([" ", None, ""], "Generalist"),
        ("  Editor ", "Editor"),
        (["a", " b ", 3, None], "a, b, 3"),
        (7, "7"),
        (0.5, "0.5"),
        (True, "True"),
        ({"a": [1]}, "{'a': [1]}"),
        ([["x"], {"y": 1}], "['x'], {'y': 1}"),
    ],
)
def test_a_profile_value_of_any_type_becomes_text(value: Any, text: str) -> None:
    assert profile_fields({"role": value})["identity_role"] == text


@pytest.mark.parametrize("profile", [None, [], ["role"], "role", 5, True, {}, {1: 2}, {"unknown": "x"}])
def test_a_profile_of_any_shape_gives_the_defaults(profile: Any) -> None:
    fields = profile_fields(profile)
    assert fields["identity_role"] == "Generalist"
    assert len(fields) == 10


def test_clean_takes_out_what_nobody_sees_and_keeps_languages() -> None:
    assert clean("a\x00b\ufeffc\ud800d\u202ee\r\nf\rg\u2028h\ti") == "abcde\nf\ng\nh\ti"
    assert clean("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680") == (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680"
    )


def test_clean_leaves_no_placeholder_however_it_is_nested() -> None:
    half = len(PLACEHOLDER) // 2
    nested = PLACEHOLDER[:half] + PLACEHOLDER + PLACEHOLDER[half:]
    split = PLACEHOLDER[:half] + "\ufeff" + PLACEHOLDER[half:]
    assert clean(f"x{nested}y{split}z{PLACEHOLDER}") == "xyz"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://x", "http://a b", "http://x/?a=1", "http://x/$(id)", "https://u:secret@x"],
)
def test_base_url_that_a_shell_line_cannot_hold_is_refused_unquoted(url: str) -> None:
    with pytest.raises(PermanentError, match="BASE_URL") as refusal:
        main_agent_context(AGENT, GATEWAY, USER, url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["http://[::1]:8000", "https://mc.example.org/api-root", "http://10.0.0.1:80"]
)
def test_base_url_may_be_any_plain_address(url: str) -> None:
    assert main_agent_context(AGENT, GATEWAY, USER, url + "/")["base_url"] == url
