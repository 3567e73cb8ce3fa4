"""What we write into openclaw.json is read back as the same text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.gateway.config_text import text_fault, variable_fault, without_nulls
from worker.gateway.dialect import Dialect
from worker.gateway.roster_plan import RosterEntry, entry_fault, plan_roster
from worker.gateway.variables import escaped
from worker.lab.simulator.document import with_variables

OLDEST = Dialect.from_hello("dev", set())
MERGING = Dialect.from_hello("dev", {"secrets.reload"})
NEWEST = Dialect.from_hello("2026.9.6", {"cron.scratch.set", "agents.workspace.list"})
MARK = "__OPENCLAW_REDACTED__"


@settings(max_examples=300, deadline=None)
@given(text=st.text("$${}{}AB_1a ", max_size=24))
def test_whatever_looks_like_a_variable_is_read_back_as_text(text: str) -> None:
    environment = {"A": "a secret", "B": "another", "AB": "a third", "_": "a fourth"}
    assert with_variables(escaped({"name": [text]}), environment) == {"name": [text]}


def test_text_without_a_variable_is_written_as_it_is() -> None:
    for text in ("Bill", "$5", "$$", "${lower}", "$(HOME)", "${A-B}", "${", "{A}", "$${lower}"):
        assert escaped(text) == text


@pytest.mark.parametrize("dialect", [MERGING, NEWEST], ids=["2026.2.26", "2026.9.6"])
def test_an_entry_with_a_variable_is_escaped_once_and_agrees_with_what_is_read_back(dialect: Dialect) -> None:
    entry = RosterEntry("mc-1", "Bill ${BUDGET_OWNER}", "~/w", {"prompt": "say $${HOME}"})
    assert entry_fault(entry, dialect) is None
    document = json.loads(json.dumps(plan_roster(dialect, {}, [entry]).document))
    listed = document["agents"].get("entries") or {e["id"]: e for e in document["agents"]["list"]}
    assert listed["mc-1"]["name"] == "Bill $${BUDGET_OWNER}"
    assert listed["mc-1"]["heartbeat"]["prompt"] == "say $$${HOME}"
    assert plan_roster(dialect, document, [entry]).document is None


@pytest.mark.parametrize(
    ("name", "heartbeat", "column"),
    [
        ("Bill ${BUDGET_OWNER}", {}, "agents.name"),
        ("Bill", {"prompt": "${HOME}"}, "agents.heartbeat_config"),
        ("Bill", {"activeHours": {"start": "$${X}"}}, "agents.heartbeat_config"),
    ],
)
def test_a_release_that_undoes_the_escape_is_not_given_one(
    name: str, heartbeat: dict[str, Any], column: str
) -> None:
    fault = variable_fault(OLDEST, name, heartbeat)
    assert fault is not None
    assert column in fault
    assert "2026.2.26" in fault


@pytest.mark.parametrize(
    ("heartbeat", "word"),
    [
        ({"$include": "/etc/passwd"}, "$include"),
        ({"activeHours": {"$include": ["a"]}}, "$include"),
        ({"__proto__": {"every": "1s"}}, "__proto__"),
        ({"constructor": 1}, "constructor"),
        ({"activeHours": {"prototype": {}}}, "prototype"),
        ({"prompt": MARK}, MARK),
        ({"prompt": {"source": "env", "provider": "default", "id": "HOME"}}, "secret"),
        ({"prompt": "\ud83d"}, "half a character"),
        ({"prompt": "x" * 70_000}, "65536"),
    ],
)
def test_what_a_config_reader_would_obey_is_refused_by_name(heartbeat: dict[str, Any], word: str) -> None:
    fault = text_fault("Ada", heartbeat)
    assert fault is not None
    assert word in fault
    assert fault.endswith(".")


def test_settings_nested_without_end_are_refused_and_end_nobody() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"x": deep}
    fault = text_fault("Ada", deep)
    assert fault is not None
    assert "nested" in fault


def test_a_null_is_a_key_that_is_not_there() -> None:
    assert without_nulls({"prompt": None, "activeHours": {"start": "8", "end": None}}) == {
        "activeHours": {"start": "8"}
    }
    for dialect in (OLDEST, MERGING, NEWEST):
        entry = RosterEntry("mc-1", "Ada", "~/w", {"prompt": None, "target": None})
        document = plan_roster(dialect, {}, [entry]).document
        assert plan_roster(dialect, document or {}, [entry]).document is None
        assert "null" not in json.dumps(document)
