"""What one agent's row makes of us ends that row alone (rules.md 33)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.agents.agent_context import render
from worker.records.agent_repository import AgentRecord
from worker.sync import agent_plans

pytestmark = on_one_release

DEEP = '{"a":' * 3000 + "1" + "}" * 3000
PROFILE, HEARTBEAT, SOUL = "identity_profile", "heartbeat_config", "soul_template"
FAULTS = [
    [
        (SOUL, "{% if 1e999 > 1 %}x{% endif %}"),
        (HEARTBEAT, DEEP),
        (HEARTBEAT, '{"every": "10m", "target": 1e999}'),
        (PROFILE, DEEP),
    ],
    [
        (SOUL, "{{ 'a'|default('b', boolean=1, boolean=2) }}"),
        (HEARTBEAT, '{"every": "10m", "target": ' + "9" * 5000 + "}"),
        (HEARTBEAT, '{"every": "10m", "prompt": "\\ud800"}'),
    ],
]


@pytest.mark.parametrize("faults", FAULTS)
def test_the_rows_of_some_stop_nobody_else(settled: Scene, faults: list[tuple[str, str]]) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "47m"}'""")
    names = list(settled.row("SELECT json_agg(name) AS n FROM agents WHERE board_id IS NOT NULL").n)
    for name, (column, value) in zip(names, faults, strict=False):
        kind = "text" if column == SOUL else "json"
        statement = f"UPDATE agents SET {column} = CAST(:value AS {kind}) WHERE name = :name"
        settled.execute(statement, value=value, name=name)
    job = settled.sync()
    rows = settled.rows(job.id)
    failed = {name for name, row in rows.items() if row.status == "failed"}
    assert failed == set(names[: len(faults)])
    assert not any("Internal error" in rows[name].reason for name in failed)
    others = [row for name, row in rows.items() if name not in failed]
    assert {(row.status, row.roster["action"]) for row in others} == {("succeeded", "update")}


def test_faults_of_our_own_over_some_stop_nobody_else(
    settled: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "47m"}'""")
    names = list(settled.row("SELECT json_agg(name) AS n FROM agents WHERE board_id IS NOT NULL").n)
    odd = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")
    errors = dict(zip(names, (RecursionError(), KeyError("x"), MemoryError(), odd), strict=False))

    def faulty(record: AgentRecord, *rest: Any, **more: Any) -> Any:
        if record.agent.name in errors:
            raise errors[record.agent.name]
        return render(record, *rest, **more)

    monkeypatch.setattr(agent_plans, "render", faulty)
    rows = settled.rows(settled.sync().id)
    for name, error in errors.items():
        assert rows[name].status == "failed"
        assert f"Internal error ({type(error).__name__})" in rows[name].reason
    assert {row.status for name, row in rows.items() if name not in errors} == {"succeeded"}


def test_a_refused_override_keeps_no_token_from_being_rotated(settled: Scene) -> None:
    before = hashes(settled)
    settled.execute("UPDATE agents SET soul_template = 'I use {{ nope.x }}.' WHERE name = 'Bob 0'")
    job = settled.sync(rotate_tokens=True)
    rows = settled.rows(job.id)
    assert {row.status for row in rows.values()} == {"succeeded"}
    assert "SOUL.md was left as it is" in rows["Bob 0"].warnings[0]
    assert "SOUL.md" not in rows["Bob 0"].files
    after = hashes(settled)
    assert all(after[name] != before[name] for name in before)


def hashes(scene: Scene) -> dict[str, str]:
    statement = "SELECT json_object_agg(name, agent_token_hash) AS hashes FROM agents"
    return dict(scene.row(statement).hashes)
