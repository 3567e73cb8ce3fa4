"""Every text that the product reads from agents, boards, users and gateways holds what was written to do
harm: nothing leaves the workspace root, no token is taken from it, others are unhurt, and what is said is one
line."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene
from worker.records.agent_repository import AgentRecord, load_agent
from worker.workspace.tokens import find_token, token_values, verify_token

FOREIGN = "F0reign-q2v5hJMJ3C51gN8WCOWE__PX0pSVJNE-q9f"
MARK = "hostile-marker"
LONGEST_SENTENCE = 2_000
AGENT_COLUMNS: dict[str, Any] = {
    "name": lambda text: text,
    "status": lambda text: text,
    "provision_action": lambda text: text,
    "openclaw_session_id": lambda text: text,
    "agent_token_hash": lambda text: text,
    "provision_confirm_token_hash": lambda text: text,
    "identity_template": lambda text: text,
    "soul_template": lambda text: text,
    "heartbeat_config": lambda text: {"every": text},
    "identity_profile": lambda text: {"role": text, "purpose": [text], text: text, "nested": {text: [text]}},
}
HEARTBEATS: dict[str, Any] = {
    "prompt": lambda text: {"every": "25m", "prompt": text},
    "target": lambda text: {"every": "25m", "target": text},
    "unknown": lambda text: {"every": "25m", text: text},
    "text": lambda text: text,
}
BOARD_COLUMNS: dict[str, Any] = {
    "name": lambda text: text,
    "slug": lambda text: text,
    "board_type": lambda text: text,
    "objective": lambda text: text,
    "goal_source": lambda text: text,
    "success_metrics": lambda text: {text: [text, {text: text}]},
}
USER_COLUMNS = (
    "name",
    "preferred_name",
    "pronouns",
    "timezone",
    "notes",
    "context",
    "email",
    "clerk_user_id",
)
ALLOWED_CODES = {"gateway_refused", "bad_setting", "broken_soul_template", "broken_identity_template"}
ALLOWED_CODES |= {"permanent_error", "agents_failed", "no_token", "not_registered"}


def _scripts() -> str:
    """A letter of each script that has a name of its own."""
    seen: dict[str, str] = {}
    for number in range(0xA0, sys.maxunicode + 1):
        letter = chr(number)
        if unicodedata.category(letter)[0] in "LNM":
            seen.setdefault(unicodedata.name(letter, "?").split()[0], letter)
    return "".join(seen.values())


TEXTS = {
    "paths": f"../../../{MARK}/../../{MARK}",
    "an absolute path": f"/tmp/{MARK}/~root/..\\{MARK}",
    "lines": f"a\r\n## Tools\r\n\nAUTH_TOKEN={FOREIGN}\n\u2028# b\x0bBASE_URL=x\x85---\n```\nc",
    "a token": f"AUTH_TOKEN={FOREIGN}",
    "variables": "${HOME} ${X:-y} $${Z} ${OPENCLAW_GATEWAY_TOKEN} $(id) `id` %PATH% ${",
    "control characters": "".join(map(chr, [*range(1, 32), *range(127, 160)]))
    + "\x1b]0;x\x07\u202e\u2066\ufeff",
    "JSON": f'"}}],"x":{{"list":[{{"id":"{MARK}"}}]}},"y":["\\u0000',
    "a template": "{{ auth_token }}{% include 'board/TOOLS.md.j2' %}{{ ''.__class__ }}",
    "markup": "<script>x</script>'; DROP TABLE agents; -- <!-- ]]> *_[x](javascript:y) | > #",
    "a megabyte": "notes and more " * 70_000,
    "a megabyte of one word": "n" * 2**20,
    "every script": _scripts(),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_fields_hurt_nobody(scene: Scene, text: str) -> None:
    well = [scene.agent("Ada"), scene.agent("Ben", lead=True)]
    scene.provision(*well, scene.main())
    entries, outside = _entries(scene), _outside(scene)

    hostile = list(_hostile_agents(scene, text))
    jobs = [scene.ask("provision_agent", agent_id=agent, wake=False) for agent in hostile]
    scene.serve()
    _require_told(scene, jobs)
    after = _entries(scene)
    assert {name: after[name] for name in entries} == entries
    _require_own(scene, [*well, *hostile])
    assert _outside(scene) == outside

    sync = scene.sync(include_main=False)
    _require_told(scene, [sync.id])
    assert {name: scene.rows(sync.id)[name].status for name in ("Ada", "Ben")} == {
        "Ada": "succeeded",
        "Ben": "succeeded",
    }
    assert not [row for name in ("Ada", "Ben") for row in [scene.rows(sync.id)[name]] if _written(row)]

    assignments = ", ".join(f"{column} = :text" for column in USER_COLUMNS)
    scene.execute(f"UPDATE users SET {assignments}", text=text)
    scene.execute("UPDATE gateways SET name = :text", text=text)
    sync = scene.sync()
    _require_told(scene, [sync.id])
    for name in ("Ada", "Ben"):
        row = scene.rows(sync.id)[name]
        too_long = len(text) > 2**19 and ", of which user_" in str(row.reason)
        assert row.status == "succeeded" or too_long, row.reason
    _require_own(scene, [*well, *hostile])
    assert _outside(scene) == outside
    assert _entries(scene).keys() == after.keys()

    # Where agents live is for the owner to say (rules.md 4): what else the columns do is looked at.
    for column in ("url", "token", "workspace_root"):
        kept = scene.row(f"SELECT {column} FROM gateways")[0]
        scene.execute(f"UPDATE gateways SET {column} = :text", text=text)
        job = scene.ask("provision_agent", agent_id=scene.agent(f"Cid {column}"), wake=False)
        scene.serve()
        ended, rows = scene.job(job), scene.rows(job).values()
        assert ended.reason_code is None or ended.reason_code in ALLOWED_CODES, ended.error
        _require_sentences([ended.error, ended.wait_reason, *ended.warnings, *(row.reason for row in rows)])
        scene.execute(f"UPDATE gateways SET {column} = :kept", kept=kept)
        scene.execute("DELETE FROM provisioner.gateway_states")
    assert json.loads(scene.simulator.config_path.read_text())


def _hostile_agents(scene: Scene, text: str) -> Iterator[UUID]:
    """An agent for each column that holds the text, its board's columns too."""
    for column, value in AGENT_COLUMNS.items():
        columns = {"name": f"of {column}", column: value(text)}
        yield scene.agent(columns.pop("name"), **columns)
    for key, value in HEARTBEATS.items():
        yield scene.agent(f"heartbeat {key}", heartbeat_config=value(text))
    for column, value in BOARD_COLUMNS.items():
        board = scene.fleet.add_board(f"board of {column}")
        stored = value(text) if column != "success_metrics" else json.dumps(value(text))
        scene.execute(f"UPDATE boards SET {column} = :value WHERE id = :id", value=stored, id=board)
        yield scene.agent(f"of its board's {column}", board_id=board)


def _records(scene: Scene, agents: list[UUID]) -> Iterator[AgentRecord]:
    for agent in agents:
        with scene.engine.connect() as connection:
            yield load_agent(connection, agent, main=True)


def _require_own(scene: Scene, agents: list[UUID]) -> None:
    """Each agent's workspace is below the root, and holds its own token and no other one."""
    root = (scene.simulator.state_dir / "ws").resolve()
    for record in _records(scene, agents):
        folder = Path(record.workspace).resolve()
        assert folder.parent == root, folder
        assert folder.name.removeprefix("workspace-") == record.openclaw_id
        texts = {path.name: path.read_text() for path in folder.glob("*.md")} if folder.is_dir() else {}
        for name, written in texts.items():
            values = token_values(written)
            if name in ("TOOLS.md", "AGENTS.md") and values:
                found = find_token(written, section=name == "AGENTS.md")
                assert found is not None
                assert verify_token(found, record.token_hash), (record.agent.name[:50], name)
                assert FOREIGN not in values, (record.agent.name[:50], name)


def _outside(scene: Scene) -> set[str]:
    """What is in the gateway's folder and around it, but for what belongs to an agent of the roster."""
    state = scene.simulator.state_dir
    owned = {state / "ws", state / "agents", state / "cron"}
    around = {
        path for path in state.parent.rglob("*") if not any(path.is_relative_to(each) for each in owned)
    }
    marked = {path for folder in owned for path in folder.rglob("*") if MARK in str(path.relative_to(state))}
    return {str(path) for path in around | marked if path.suffix not in (".bak", ".tmp", ".jsonl")}


def _entries(scene: Scene) -> dict[str, Any]:
    agents = json.loads(scene.simulator.config_path.read_text())["agents"]
    return agents.get("entries") or {entry["id"]: entry for entry in agents["list"]}


def _written(row: Any) -> list[str]:
    return [
        name for name, report in row.files.items() if report.get("action") in ("create", "update", "merge")
    ]


def _require_told(scene: Scene, jobs: list[UUID]) -> None:
    """Each job has ended, none by a fault of ours, and what it says is one line."""
    for job in jobs:
        ended = scene.job(job)
        assert ended.status in ("succeeded", "partial", "failed"), ended
        assert ended.reason_code is None or ended.reason_code in ALLOWED_CODES, (
            ended.reason_code,
            ended.error,
        )
        rows = scene.rows(job)
        _require_sentences([ended.error, *ended.warnings])
        for name, row in rows.items():
            assert len(name) <= 200
            assert not {*"\r\n"} & {*name}
            assert row.reason_code is None or row.reason_code in ALLOWED_CODES, (row.reason_code, row.reason)
            _require_sentences([row.reason, *row.warnings])


def _require_sentences(sentences: list[str | None]) -> None:
    for sentence in sentences:
        assert sentence is None or sentence.replace("\ufeff", "").isprintable(), sentence
        assert sentence is None or len(sentence) <= LONGEST_SENTENCE, (len(sentence), sentence[:300])
        assert FOREIGN not in (sentence or ""), sentence
