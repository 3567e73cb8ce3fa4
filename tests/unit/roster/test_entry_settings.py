"""Settings of an entry: what is written, what goes on record, and what is restored."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.gateway.entry_settings import (
    FieldRecord,
    apply_settings,
    as_document,
    field_fault,
    leaves_of,
    looks_secret,
    replaced_lists,
)
from worker.records.agent_settings import Setting, counting

keys = st.sampled_from("abc")
leaves = st.sampled_from([1, "x", "y", [], ["p"], ["p", "q"], False])
trees = st.dictionaries(
    keys, leaves | st.dictionaries(keys, leaves | st.dictionaries(keys, leaves, max_size=2), max_size=2)
)
fields = st.lists(keys, min_size=1, max_size=3).map(".".join)


@st.composite
def wanted_fields(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in draw(st.lists(fields, max_size=4)):
        if not any(_overlap(name, other) for other in found):
            found[name] = draw(leaves)
    return found


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _write(entry: Mapping[str, Any], wanted: Mapping[str, Any], records: dict[str, FieldRecord]) -> Any:
    """Record, write, read back and forget what is over, as a worker does. None if there is a fault."""
    changes = apply_settings(entry, wanted, records, present=True)
    if changes.fault is not None:
        assert changes.entry == entry
        return None
    records |= changes.records
    again = apply_settings(changes.entry, wanted, records, present=True)
    assert (again.entry, again.written, again.fault) == (changes.entry, {}, None)
    for name in again.over:
        del records[name]
    return json.loads(json.dumps(changes.entry))


@settings(max_examples=600, deadline=None)
@given(entry=trees, steps=st.lists(wanted_fields(), max_size=4))
def test_whatever_was_set_the_last_unset_restores_the_entry(
    entry: dict[str, Any], steps: list[dict[str, Any]]
) -> None:
    records: dict[str, FieldRecord] = {}
    live = copy.deepcopy(entry)
    for wanted in steps:
        written = _write(live, wanted, records)
        if written is None:
            continue
        live = written
        for name, value in wanted.items():
            assert _at(live, name) == value
    assert _write(live, {}, records) == entry
    assert records == {}


@settings(max_examples=400, deadline=None)
@given(entry=trees, wanted=wanted_fields(), edit=trees)
def test_what_the_owner_writes_after_us_is_never_undone(
    entry: dict[str, Any], wanted: dict[str, Any], edit: dict[str, Any]
) -> None:
    records: dict[str, FieldRecord] = {}
    live = _write(entry, wanted, records)
    if live is None:
        return
    edited = {**live, **edit}
    changes = apply_settings(edited, {}, records, present=True)
    assert changes.fault is None
    for name, value in leaves_of_tree(edit).items():
        owners = not any(_overlap(name, each) and _at(live, name) == value for each in wanted)
        owners = owners and value != {}  # an object that we made and its owner emptied goes
        if owners:
            assert _at(changes.entry, name) == value


def leaves_of_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves_of(key, value)
    return found


def _at(entry: Any, name: str) -> Any:
    for key in name.split("."):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def test_a_new_entry_has_nothing_to_restore() -> None:
    records = {"skills": FieldRecord((["ours"],), ["owners"]), "model": FieldRecord(("a",), "b")}
    changes = apply_settings({}, {"skills": ["ours"]}, records, present=False)
    assert changes.records == {"skills": FieldRecord((["ours"],), None)}
    assert set(changes.over) == {"model"}
    assert changes.notes == ()


def test_a_rejected_value_is_not_the_only_one_that_is_ours() -> None:
    """The gateway refuses the second value: the first, which it still has, must be taken back as well."""
    records = dict(apply_settings({"a": "owners"}, {"a": 1}, {}, present=True).records)
    records |= apply_settings({"a": 1}, {"a": 2}, records, present=True).records
    assert apply_settings({"a": 1}, {}, records, present=True).entry == {"a": "owners"}


def test_a_text_where_an_object_must_be_is_not_replaced() -> None:
    changes = apply_settings({"model": "x/y"}, {"model.primary": "a/b", "skills": []}, {}, present=True)
    assert changes.entry == {"model": "x/y"}
    assert changes.fault is not None
    assert "set model as a whole" in changes.fault


@pytest.mark.parametrize(
    "held", ["__OPENCLAW_REDACTED__", {"a": ["__OPENCLAW_REDACTED__"]}, "sk-0123456789abcdefgh"]
)
def test_a_secret_is_neither_recorded_nor_written_over(held: Any) -> None:
    changes = apply_settings({"params": held}, {"params": 1}, {}, present=True)
    assert changes.entry == {"params": held}
    assert changes.records == {}
    assert changes.fault is not None
    assert "sk-" not in changes.fault


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("sandbox.docker.env.API_KEY", "x", True),
        ("sandbox.docker.env", {"DB_PASSWORD": "hunter2"}, True),
        ("params.note", "sk-0123456789abcdefgh", True),
        ("model", "anthropic/claude-opus-4-5", False),
        ("skills", ["github", "1password"], False),
        ("params.maxTokens", 4096, False),
        ("tools.profile", "minimal", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: Any, secret: bool) -> None:
    assert looks_secret(name, value) is secret


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        "a b",
        "x" * 201,
        "name",
        "id",
        "workspace",
        "heartbeat.every",
        "a.__proto__",
        "ä",
        "$include",
        ".".join("abcdefghi"),
    ],
)
def test_what_cannot_be_a_field(name: str) -> None:
    assert field_fault(name) is not None


@pytest.mark.parametrize("name", ["model", "tools.byProvider.openai/gpt-5.deny", "sandbox.docker.env.PATH_1"])
def test_what_can_be_a_field(name: str) -> None:
    assert field_fault(name) is None


def test_an_object_is_its_fields_unless_a_key_is_no_part_of_a_path() -> None:
    assert leaves_of("tools", {"profile": "x", "exec": {"host": "y"}}) == {
        "tools.profile": "x",
        "tools.exec.host": "y",
    }
    dotted: dict[str, Any] = {"openai/gpt-5.1": {"deny": []}}
    assert leaves_of("tools.byProvider", dotted) == {"tools.byProvider": dotted}
    assert leaves_of("tools", {}) == {"tools": {}}
    assert as_document({"a.b": 1, "a.c": 2, "d": {}}) == {"a": {"b": 1, "c": 2}, "d": {}}


def test_lists_that_lose_their_place_are_named() -> None:
    before = {"skills": ["a"], "tools": {"deny": ["x"], "allow": ["y"]}, "model": "m"}
    after = {"skills": ["a"], "tools": {"allow": ["z"]}}
    assert list(replaced_lists(before, after, "e")) == ["e.tools.deny", "e.tools.allow"]


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        ([("gateway", "m", 1, False)], {"m": ("gateway", 1)}),
        (
            [("gateway", "m", 1, False), ("board", "m", 2, False), ("agent", "m", 3, False)],
            {"m": ("agent", 3)},
        ),
        (
            [("gateway", "m", 1, True), ("board", "m", 2, True), ("agent", "m", 3, False)],
            {"m": ("gateway", 1)},
        ),
        (
            [("board", "m", 2, True), ("agent", "m", 3, False), ("gateway", "m", 1, False)],
            {"m": ("board", 2)},
        ),
        ([("gateway", "m", "x", False), ("agent", "m.f", [], False)], {"m.f": ("agent", [])}),
        ([("gateway", "m.f", [], True), ("agent", "m", "x", False)], {"m.f": ("gateway", [])}),
        (
            [("gateway", "t", {"a": 1, "b": 2}, False), ("agent", "t.a", 3, False)],
            {"t.a": ("agent", 3), "t.b": ("gateway", 2)},
        ),
    ],
)
def test_of_rows_for_one_field_one_counts(rows: list[Any], value: dict[str, Any]) -> None:
    counted = counting(Setting(*row) for row in rows)
    assert {name: (setting.scope, setting.value) for name, setting in counted.items()} == value
