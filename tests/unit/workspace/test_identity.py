from __future__ import annotations

import pytest

from tests.unit.workspace.samples import AGENT_ID, BOARD_ID, GATEWAY_ID
from worker.errors import PermanentError
from worker.workspace.identity import (
    main_session_key,
    main_workspace_path,
    openclaw_id,
    session_key,
    slug,
    workspace_path,
)


@pytest.mark.parametrize(
    ("board_id", "lead", "key"),
    [
        (BOARD_ID, False, f"agent:mc-{AGENT_ID}:main"),
        (BOARD_ID, True, f"agent:lead-{BOARD_ID}:main"),
        (None, True, f"agent:mc-{AGENT_ID}:main"),
        (None, False, f"agent:mc-{AGENT_ID}:main"),
    ],
)
def test_session_key_is_made_from_ids(board_id: str | None, lead: bool, key: str) -> None:
    assert session_key(AGENT_ID, board_id, lead) == key


def test_main_agent_is_named_like_its_openclaw_id() -> None:
    assert openclaw_id(main_session_key(GATEWAY_ID)) == f"mc-gateway-{GATEWAY_ID}"


def test_openclaw_id_is_the_second_part_of_the_key() -> None:
    assert openclaw_id(f"agent:lead-{BOARD_ID}:main") == f"lead-{BOARD_ID}"
    assert openclaw_id("agent:mc-1:thread:7") == "mc-1"


@pytest.mark.parametrize(
    "key",
    ["", "agent", "agent:", "agent::main", "agent:x", "agent:x:", "mc-1", "agent:a b:main", "agent:x:main\n"],
)
def test_malformed_session_key_is_refused_and_quoted(key: str) -> None:
    with pytest.raises(PermanentError) as refusal:
        openclaw_id(key)
    assert repr(key) in str(refusal.value)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("~/.openclaw", "~/.openclaw/workspace-mc-1"),
        ("~/.openclaw///", "~/.openclaw/workspace-mc-1"),
        (" /srv/agents/ ", "/srv/agents/workspace-mc-1"),
        ("/", "/workspace-mc-1"),
    ],
)
def test_workspace_stands_below_the_gateways_root(root: str, path: str) -> None:
    assert workspace_path(root, "mc-1") == path


@pytest.mark.parametrize("root", ["", "  ", "\t"])
def test_empty_workspace_root_is_refused_with_gateway_and_cure(root: str) -> None:
    with pytest.raises(PermanentError, match=r"gateway 'Office' has no workspace_root: set it"):
        workspace_path(root, "mc-1", gateway="Office")
    with pytest.raises(PermanentError, match="workspace_root"):
        main_workspace_path(root, GATEWAY_ID)


def test_main_workspace_keeps_its_old_name() -> None:
    assert main_workspace_path("/srv/", GATEWAY_ID) == f"/srv/workspace-gateway-{GATEWAY_ID}"


@pytest.mark.parametrize("text", ["../a/b", "a/./b", "a..b", "/a.b/", "A/../B"])
def test_slug_names_one_folder_and_no_way_out_of_it(text: str) -> None:
    assert slug(text) == "a-b"


def test_slug_keeps_ids_and_never_makes_something_up() -> None:
    assert slug(f"mc-{AGENT_ID}") == f"mc-{AGENT_ID}"
    assert slug("  Ada & Bob!  ") == "ada-bob"
    with pytest.raises(PermanentError):
        slug("\u65e5\u672c")
