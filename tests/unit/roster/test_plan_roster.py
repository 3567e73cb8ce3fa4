"""The one patch of a roster: whatever a config holds, it corrects our part and leaves all others alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.gateway.agent_ids import IMPLICIT_AGENT
from worker.gateway.dialect import Dialect
from worker.gateway.roster_plan import DEFAULT_VISIBILITY, RosterEntry, plan_roster, roster_entries

NEW_METHODS = {"cron.scratch.set", "agents.workspace.list"}
DIALECTS = {
    "2026.2.12": Dialect.from_hello("dev", set()),
    "2026.3.13": Dialect.from_hello("2026.3.13", set()),
    "2026.9.6": Dialect.from_hello("2026.9.6", NEW_METHODS),
}

scalars = st.booleans() | st.integers(-9, 9) | st.text("ab€ ", max_size=4)
objects = st.dictionaries(st.sampled_from("xyz"), scalars, max_size=2)
json_values = scalars | objects | st.lists(scalars | objects, max_size=2)
some_keys = st.dictionaries(st.sampled_from(["model", "tools", "identity", "heartbeat", "name"]), json_values)
ids = st.sampled_from(["main", "bot", "mc-1", "mc-2", "lead-3"])
heartbeats = st.dictionaries(
    st.sampled_from(["every", "target", "includeReasoning", "model", "activeHours"]),
    st.sampled_from(["10m", "1h", "none", "last"]) | st.booleans(),
    max_size=3,
)
wanted_entries = st.lists(
    st.builds(
        RosterEntry,
        openclaw_id=st.sampled_from(["mc-1", "mc-2", "mc-4", "lead-3"]),
        name=st.text("Ab é", min_size=1, max_size=5),
        workspace=st.sampled_from(["~/w/1", "/srv/2"]),
        heartbeat=heartbeats,
    ),
    max_size=4,
    unique_by=lambda entry: entry.openclaw_id,
)


@st.composite
def configs(draw: st.DrawFn, dialect: Dialect) -> dict[str, Any]:
    """A config as a gateway of the dialect may hold it, with other people's keys at every level."""
    config: dict[str, Any] = draw(st.dictionaries(st.sampled_from(["gateway", "models"]), json_values))
    entries = draw(st.dictionaries(ids, some_keys, max_size=4))
    agents: dict[str, Any] = draw(st.dictionaries(st.just("defaults"), json_values))
    if dialect.roster == "list" and draw(st.booleans()):
        agents["list"] = [{"id": key, **entry} for key, entry in entries.items()]
    if dialect.roster == "entries" and draw(st.booleans()):
        agents |= {"entries": entries, "ownership": "explicit"}
    if agents:
        config["agents"] = agents
    if draw(st.booleans()):
        visible = draw(st.dictionaries(st.sampled_from(["showOk", "showAlerts", "other"]), st.booleans()))
        defaults = {
            **draw(st.dictionaries(st.just("groupPolicy"), json_values)),
            dialect.visibility_key: visible,
        }
        config["channels"] = {"telegram": draw(json_values), "defaults": defaults}
    return config


def patched(dialect: Dialect, config: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The config after a patch, as the gateway applies it.

    It is a JSON merge patch (RFC 7396): a list replaces a list, or from 2026.2.26 on is merged by id
    (gateways.md 4).
    """
    after: dict[str, Any] = merged(config, document)
    new = document.get("agents", {}).get("list")
    old = config.get("agents", {}).get("list")
    if dialect.merges_lists and new is not None and old is not None:
        by_id = {entry["id"]: entry for entry in old}
        for entry in new:
            by_id[entry["id"]] = merged(by_id.get(entry["id"], {}), entry)
        after["agents"]["list"] = list(by_id.values())
    return after


def merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(copy.deepcopy(target)) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def entries_of(dialect: Dialect, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    agents = config.get("agents", {})
    if dialect.roster == "entries":
        return dict(agents.get("entries", {}))
    return {entry["id"]: entry for entry in agents.get("list", [])}


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.mark.parametrize("release", DIALECTS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_the_config_holds_a_second_plan_on_the_patched_one_is_empty(
    release: str, data: st.DataObject
) -> None:
    dialect = DIALECTS[release]
    config, wanted = data.draw(configs(dialect)), data.draw(wanted_entries)
    plan = plan_roster(dialect, config, wanted)
    after = patched(dialect, config, plan.document or {})
    again = plan_roster(dialect, after, wanted)
    assert (again.document, again.changed) == (None, frozenset())
    assert (plan.document is None) == (after == config)
    assert json.loads(json.dumps(plan.document)) == plan.document


@pytest.mark.parametrize("release", DIALECTS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_other_entries_and_keys_are_untouched(release: str, data: st.DataObject) -> None:
    dialect = DIALECTS[release]
    config, wanted = data.draw(configs(dialect)), data.draw(wanted_entries)
    before = copy.deepcopy(config)
    plan = plan_roster(dialect, config, wanted)
    after = patched(dialect, config, plan.document or {})
    assert config == before
    ours = {entry.openclaw_id for entry in wanted}
    old, new = entries_of(dialect, config), entries_of(dialect, after)
    implied = {IMPLICIT_AGENT} if new and dialect.roster == "list" and not old else set()
    assert set(new) == set(old) | ours | implied
    for key in set(old) - ours:
        assert new[key] == old[key]
    for key in set(old) & ours:
        kept = set(old[key]) - {"id", "name", "workspace", "heartbeat"}
        assert {name: new[key][name] for name in kept} == {name: old[key][name] for name in kept}
    assert list(new)[: len(old)] == list(old)
    for section in set(config) - {"agents", "channels"}:
        assert after[section] == config[section]
    agents = config.get("agents", {})
    assert after.get("agents", {}).get("defaults") == agents.get("defaults")
    channels = config.get("channels", {})
    if channels:
        assert after["channels"]["telegram"] == channels["telegram"]
        for key, value in channels["defaults"][dialect.visibility_key].items():
            assert after["channels"]["defaults"][dialect.visibility_key][key] == value


@pytest.mark.parametrize("release", DIALECTS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_wanted_entry_stands_as_wanted(release: str, data: st.DataObject) -> None:
    dialect = DIALECTS[release]
    config, wanted = data.draw(configs(dialect)), data.draw(wanted_entries)
    plan = plan_roster(dialect, config, wanted)
    new = entries_of(dialect, patched(dialect, config, plan.document or {}))
    for entry in wanted:
        got = new[entry.openclaw_id]
        assert (got["name"], got["workspace"]) == (entry.name, entry.workspace)
        expected: dict[str, Any] = {"every": "10m", "target": "none", "includeReasoning": False}
        expected |= entry.heartbeat
        if dialect.roster == "entries":
            del expected["includeReasoning"]
        assert got["heartbeat"] == expected
    assert plan.changed <= {entry.openclaw_id for entry in wanted}
    assert plan.present == frozenset(roster_entries(dialect, config))


def test_nothing_wanted_is_nothing_to_send(dialect: Dialect) -> None:
    assert plan_roster(dialect, {}, []).document is None


def test_the_first_entry_of_a_fresh_list_keeps_the_implicit_agent_as_the_default() -> None:
    entry = RosterEntry("mc-1", "Ada", "~/w")
    plan = plan_roster(DIALECTS["2026.2.12"], {}, [entry])
    assert plan.document is not None
    assert [listed["id"] for listed in plan.document["agents"]["list"]] == ["main", "mc-1"]


def test_a_fresh_map_says_whose_it_is() -> None:
    entry = RosterEntry("mc-1", "Ada", "~/w")
    plan = plan_roster(DIALECTS["2026.9.6"], {}, [entry])
    assert plan.document is not None
    assert plan.document["agents"]["ownership"] == "explicit"
    assert list(plan.document["agents"]["entries"]) == ["mc-1"]


def test_an_ownership_that_is_said_is_left_alone() -> None:
    config = {"agents": {"ownership": "legacy", "entries": {"main": {}}}}
    plan = plan_roster(DIALECTS["2026.9.6"], config, [RosterEntry("mc-1", "Ada", "~/w")])
    assert plan.document is not None
    assert "ownership" not in plan.document["agents"]


def test_a_map_is_patched_with_what_differs_alone() -> None:
    entry = RosterEntry("mc-1", "Ada", "~/w", {"every": "1h"})
    dialect = DIALECTS["2026.9.6"]
    config = patched(dialect, {}, plan_roster(dialect, {}, [entry]).document or {})
    plan = plan_roster(dialect, config, [replace(entry, name="Ada B.")])
    assert plan.document == {"agents": {"entries": {"mc-1": {"name": "Ada B."}}}}
    plan = plan_roster(dialect, config, [replace(entry, heartbeat={})])
    assert plan.document == {"agents": {"entries": {"mc-1": {"heartbeat": {"every": "10m"}}}}}


def test_a_list_is_always_sent_whole() -> None:
    """Up to 2026.2 an entry that is not sent is wiped."""
    dialect = DIALECTS["2026.2.12"]
    bot = {"id": "bot", "apiKey": "__OPENCLAW_REDACTED__", "strange": [1]}
    plan = plan_roster(dialect, {"agents": {"list": [bot]}}, [RosterEntry("mc-1", "Ada", "~/w")])
    assert plan.document is not None
    assert plan.document["agents"]["list"][0] == bot


def test_visibility_is_filled_in_where_missing_and_never_overwritten(dialect: Dialect) -> None:
    entry = [RosterEntry("mc-1", "Ada", "~/w")]
    fresh = plan_roster(dialect, {}, entry).document
    assert fresh is not None
    assert fresh["channels"]["defaults"] == {dialect.visibility_key: DEFAULT_VISIBILITY}
    config = {"channels": {"defaults": {dialect.visibility_key: {"showOk": True}}}}
    filled = plan_roster(dialect, config, entry).document
    assert filled is not None
    assert filled["channels"]["defaults"] == {
        dialect.visibility_key: {"showAlerts": True, "useIndicator": True}
    }


@pytest.mark.parametrize("strange", [None, 3, "x", [], [3], {"entries": []}, {"list": [None, {}]}])
def test_a_config_of_a_strange_shape_is_no_reason_to_stumble(dialect: Dialect, strange: Any) -> None:
    plan = plan_roster(dialect, {"agents": strange, "channels": strange}, [RosterEntry("mc-1", "A", "~/w")])
    assert plan.changed == {"mc-1"}


@pytest.mark.parametrize("release", DIALECTS)
def test_an_owners_entry_takes_settings_and_nothing_else(release: str) -> None:
    """rules.md 48: neither its name, folder and heartbeat, nor what only our own entries bring along."""
    dialect = DIALECTS[release]
    bot = RosterEntry("bot", "Ours", "/ours", {"every": "5m"}, settings_only=True)
    main = RosterEntry(IMPLICIT_AGENT, "Ours", "/ours", settings_only=True)
    as_list = dialect.roster == "list"
    held: dict[str, Any] = {"entries": {"main": {}, "bot": {}}}
    if as_list:
        held = {"list": [{"id": "main"}, {"id": "bot"}]}
    config = {"agents": {**held, "ownership": "explicit"}}
    for parsed, entries in ((config, [bot, main]), ({}, [main])):
        assert plan_roster(dialect, parsed, entries).document is None
        given = [replace(entry, settings={"model": "a/b"}) for entry in entries]
        plan = plan_roster(dialect, parsed, given)
        assert plan.patches == {
            entry.openclaw_id: {"model": "a/b", **({"id": "main"} if as_list and not parsed else {})}
            for entry in entries
        }
        assert (plan.silenced, "channels" in (plan.document or {})) == ((), False)
        assert plan.present >= {entry.openclaw_id for entry in entries}
    gone = plan_roster(
        dialect,
        {"agents": {"list": [{"id": "main"}]}} if as_list else config,
        [replace(bot, openclaw_id="gone")],
    )
    assert gone.patches["gone"]["workspace"] == "/ours"
