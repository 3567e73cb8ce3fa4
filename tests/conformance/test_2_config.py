"""Reading and patching the config (gateways.md 4, 6, 8). The first tests need an untouched gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conformance.conftest import OWNERS_CONFIG, OWNERS_VARIABLES, Target
from tests.conformance.peer import Device, Peer, meet, meet_when_up
from tests.conformance.steps import (
    assert_restarts,
    await_restarts,
    eventually,
    patch,
    patched,
    registering,
    roster,
    stay_open,
)

REDACTED = "__OPENCLAW_REDACTED__"
HEARTBEAT = {"every": "10m", "target": "none"}
REMOTE = {"baseUrl": "${OWNERS_URL}", "apiKey": "${OWNERS_KEY}", "headers": {"x-api-key": "ones-own-key"}}
"""An agent's key that we do not know: two variables, of which one is a secret, and a literal secret."""
URL, KEY = OWNERS_VARIABLES["OWNERS_URL"], OWNERS_VARIABLES["OWNERS_KEY"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def visibility(target: Target) -> dict[str, Any]:
    key = "heartbeatVisibility" if target.expected.roster_is_map else "heartbeat"
    return {"channels": {"defaults": {key: {"showOk": False, "showAlerts": True, "useIndicator": True}}}}


def entry(target: Target, agent_id: str, **more: object) -> dict[str, Any]:
    return {"name": agent_id, "workspace": str(target.state_dir / f"ws-{agent_id}"), **more}


def with_remote(target: Target) -> dict[str, Any]:
    if target.expected.roster_is_map:
        return {"memory": {"search": {"remote": REMOTE}}}
    return {"memorySearch": {"remote": REMOTE}}


def remote_of(target: Target, config: dict[str, Any], agent_id: str) -> dict[str, Any]:
    held = roster(target, config)[agent_id]
    remote: dict[str, Any] = (held["memory"]["search"] if "memory" in held else held["memorySearch"])[
        "remote"
    ]
    return remote


def test_config_get_shows_no_secret(target: Target, peer: Peer) -> None:
    answer = peer.ask("config.get")
    assert answer["parsed"]["gateway"]["auth"]["token"] == REDACTED
    assert answer["config"]["gateway"]["auth"]["token"] == REDACTED
    assert answer["parsed"]["models"]["providers"]["owners"]["apiKey"] == REDACTED
    shown = json.dumps(answer)
    assert target.token not in shown
    assert "owners-own-key" not in shown
    assert KEY not in shown


def test_config_get_reads_without_changing(target: Target, peer: Peer) -> None:
    before = (target.state_dir / "openclaw.json").read_bytes()
    first, second = peer.ask("config.get"), peer.ask("config.get")
    assert first["hash"] == second["hash"]
    assert first["valid"] is True
    assert first["exists"] is True
    assert (target.state_dir / "openclaw.json").read_bytes() == before


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "invalid config.patch params: must have required property 'raw'"),
        (
            {"raw": '{"agents": {}}', "baseHash": "old"},
            "config changed since last load; re-run config.get and retry",
        ),
        ({"raw": "{}", "zz": 1}, "invalid config.patch params: at root: unexpected property 'zz'"),
    ],
)
def test_a_malformed_patch_is_refused(peer: Peer, params: dict[str, Any], message: str) -> None:
    answer = peer.call("config.patch", params)
    assert answer.error["code"] == "INVALID_REQUEST"
    assert answer.message == message


def test_a_patch_needs_a_base_hash(target: Target, peer: Peer) -> None:
    answer = peer.call("config.patch", {"raw": json.dumps({"messages": {"ackReactionScope": "all"}})})
    named = " for messages.ackReactionScope" if target.expected.roster_is_map else ""
    assert answer.message.startswith(f"config base hash required{named}; re-run config.get and retry")


@pytest.mark.parametrize(
    ("raw", "message"), [("{nope", "SyntaxError: JSON5: "), ("[1]", "config.patch raw must be an object")]
)
def test_a_patch_that_is_no_object_is_refused(peer: Peer, raw: str, message: str) -> None:
    answer = peer.call("config.patch", {"raw": raw, "baseHash": peer.ask("config.get")["hash"]})
    assert answer.message.startswith(message)


@pytest.mark.parametrize(
    ("change", "path", "fault"),
    [
        ({"bogus": 1}, "", 'Unrecognized key: "bogus"'),
        ({"agents": {"bogus": 1}}, "agents", 'Unrecognized key: "bogus"'),
    ],
)
def test_an_unknown_key_is_refused_by_name(
    target: Target, peer: Peer, change: dict[str, Any], path: str, fault: str
) -> None:
    before = (target.state_dir / "openclaw.json").read_bytes()
    answer = patch(peer, change)
    assert answer.error["details"]["issues"] == [{"path": path, "message": fault}]
    told = (
        f"invalid config: {path or '<root>'}: {fault}" if target.expected.names_issues else "invalid config"
    )
    assert answer.message == told
    assert (target.state_dir / "openclaw.json").read_bytes() == before


def test_a_second_agent_needs_explicit_ownership(target: Target, peer: Peer) -> None:
    if not target.expected.roster_is_map:
        pytest.skip("a list has no owner")
    answer = patch(peer, {"agents": {"entries": {"one": entry(target, "one")}}})
    assert answer.error["details"]["issues"][0]["path"] == "agents.ownership"
    assert "agents.ownership: multi-agent rosters require agents.ownership=" in answer.message


def test_one_patch_registers_agents_and_sets_heartbeats(target: Target, peer: Peer, stack: ExitStack) -> None:
    owners = OWNERS_CONFIG["models"]["providers"]["owners"]
    parsed = peer.ask("config.get")["parsed"]
    entries = {name: entry(target, name, heartbeat=HEARTBEAT) for name in ("one", "two")}
    entries["one"] |= with_remote(target)
    if target.expected.restarts_for_channels:  # before it answers
        with pytest.raises(ConnectionClosed):
            patch(peer, visibility(target))
        await_restarts(target, peer, restarts=1)
        peer = stack.enter_context(meet_when_up(target.url, target.token, within_s=1, device=Device()))
        answer = patch(peer, registering(target, parsed, entries))
    else:
        answer = patch(peer, {**registering(target, parsed, entries), **visibility(target)})
    assert answer.ok, answer.error
    assert answer.payload["config"]["gateway"]["auth"]["token"] == REDACTED
    if target.expected.restarts_on_patch:
        assert answer.payload["restart"]["ok"] is True
        assert answer.payload["restart"]["delayMs"] >= 0
        # `channels` restart it at once; 2026.2.12 restarts for the patch again, later
        await_restarts(target, peer, restarts=1 if target.expected.spaces_restarts else 2)
    else:
        assert "restart" not in answer.payload
        if target.expected.roster_is_map:
            assert set(answer.payload["changedPaths"]) >= {"agents.entries.one", "agents.entries.two"}
        stay_open(target, peer)
    stored = target.stored_config()
    assert stored["models"]["providers"]["owners"] == owners
    assert stored["gateway"]["auth"]["token"] == target.token
    assert roster(target, stored)["one"]["heartbeat"] == HEARTBEAT
    assert {"main", "one", "two"} <= set(roster(target, stored))


def test_a_patched_agent_has_no_files_yet(target: Target, peer: Peer) -> None:
    listed = peer.ask("agents.files.list", {"agentId": "one"})
    assert listed["workspace"] == str(target.state_dir / "ws-one")
    assert [file["missing"] for file in listed["files"]] == [True] * len(target.expected.listed_files)


def test_a_write_keeps_variables_or_puts_their_values_but_for_what_it_is_sent(target: Target) -> None:
    stored = target.stored_config()
    named = stored["models"]["providers"]["named"]
    kept = OWNERS_CONFIG["models"]["providers"]["named"]
    assert named == ({**kept, "baseUrl": URL, "apiKey": KEY} if target.expected.writes_variables else kept)
    assert remote_of(target, stored, "one") == REMOTE


def test_config_get_shows_variables_and_hides_secrets(target: Target, peer: Peer) -> None:
    answer = peer.ask("config.get")
    hidden = {**REMOTE, "apiKey": REDACTED, "headers": {"x-api-key": REDACTED}}
    shown = {**hidden, "apiKey": "${OWNERS_KEY}"} if target.expected.shows_references else hidden
    assert remote_of(target, answer["parsed"], "one") == shown
    assert remote_of(target, answer["config"], "one") == {**hidden, "baseUrl": URL}


def test_a_patch_that_changes_nothing(target: Target, peer: Peer) -> None:
    before, held = (target.state_dir / "openclaw.json").read_bytes(), roster(target, target.stored_config())
    config = peer.ask("config.get")["parsed"]
    same = registering(target, config, {"two": entry(target, "two", heartbeat=HEARTBEAT)})
    answer = patch(peer, same)
    assert answer.ok, answer.error
    if target.expected.spaces_restarts:
        planned = answer.payload["restart"]
        assert planned["coalesced"] is False
        assert 0 < planned["cooldownMsApplied"] < planned["delayMs"]
    elif target.expected.restarts_on_patch:
        assert answer.payload["restart"]["delayMs"] >= 0
        assert_restarts(peer, target)
    elif target.expected.merges_lists:  # 2026.7.1 writes a list anew that it is sent whole
        assert "noop" not in answer.payload
        assert roster(target, target.stored_config()) == held
    else:
        assert answer.payload["noop"] is True
        assert (target.state_dir / "openclaw.json").read_bytes() == before


def test_a_roster_sent_back_as_it_was_shown_keeps_what_the_marks_hide(target: Target) -> None:
    key = KEY if target.expected.writes_variables else "${OWNERS_KEY}"
    assert remote_of(target, target.stored_config(), "one") == {**REMOTE, "apiKey": key}


def test_one_restart_waits_where_they_are_spaced_and_patches_may_move_it(target: Target, peer: Peer) -> None:
    if not target.expected.spaces_restarts:
        pytest.skip("restarts are not spaced here")
    later = patch(peer, {}).payload["restart"]
    sooner = patch(peer, {}, restartDelayMs=0).payload["restart"]
    assert (later["coalesced"], sooner["coalesced"]) == (True, False)
    assert later["delayMs"] > sooner["delayMs"] == sooner["cooldownMsApplied"] > 0


@pytest.mark.parametrize(
    ("value", "below", "fault"),
    [
        ({"heartbeat": {"every": "banana"}}, ".heartbeat.every", "invalid duration (use ms, s, m, h)"),
        ({"zork": 1}, "", 'Unrecognized key: "zork"'),
    ],
)
def test_a_faulty_entry_is_named_by_its_path(
    target: Target, peer: Peer, value: dict[str, Any], below: str, fault: str
) -> None:
    config = peer.ask("config.get")["parsed"]
    change = registering(target, config, {"two": {**entry(target, "two"), **value}})
    place = (
        "entries.two"
        if target.expected.roster_is_map
        else f"list.{len(change['agents'].get('list', [])) - 1}"
    )
    answer = patch(peer, change)
    assert answer.error["details"]["issues"] == [{"path": f"agents.{place}{below}", "message": fault}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": {"list": [{"id": "one"}]}}, 'agents: Unrecognized key: "list"'),
        (
            {"agents": {"entries": {"one": {"heartbeat": {"includeReasoning": False}}}}},
            'agents.entries.one.heartbeat: Unrecognized key: "includeReasoning"',
        ),
        (
            {"channels": {"defaults": {"heartbeat": {"showOk": False}}}},
            'channels.defaults: Unrecognized key: "heartbeat"',
        ),
        ({"agents": {"entries": {"Bad Id!": {}}}}, 'agents.entries["Bad Id!"]: Invalid key in record'),
    ],
)
def test_what_newer_releases_no_longer_take(
    target: Target, peer: Peer, change: dict[str, Any], message: str
) -> None:
    if not target.expected.roster_is_map:
        pytest.skip("the list family takes these, or has no entries")
    assert patch(peer, change).message == f"invalid config: {message}"


def test_the_redaction_mark_stands_for_what_is_stored(target: Target, peer: Peer) -> None:
    marked = {"models": {"providers": {"owners": {"apiKey": REDACTED, "baseUrl": "http://127.0.0.1:9/v2"}}}}
    patched(target, peer, marked)
    owners = target.stored_config()["models"]["providers"]["owners"]
    assert owners["apiKey"] == "owners-own-key"
    assert owners["baseUrl"] == "http://127.0.0.1:9/v2"
    url = URL if target.expected.writes_variables else "${OWNERS_URL}"
    assert remote_of(target, target.stored_config(), "one")["baseUrl"] == url
    assert target.stored_config()["gateway"]["auth"]["token"] == target.token


def test_a_mark_that_stands_for_nothing_is_refused(target: Target, peer: Peer) -> None:
    strange = {"models": {"providers": {"strange": {"baseUrl": URL, "apiKey": REDACTED, "models": []}}}}
    answer = patch(peer, strange)
    assert answer.error["code"] == "INVALID_REQUEST"
    assert REDACTED in answer.message
    assert "apiKey" in answer.message


def test_where_lists_are_replaced_a_mark_belongs_to_its_position_and_not_to_its_id(
    target: Target, peer: Peer
) -> None:
    if target.expected.roster_is_map or target.expected.merges_lists:
        pytest.skip("entries are merged by id")
    main, one, two, *others = peer.ask("config.get")["parsed"]["agents"]["list"]
    answer = patch(peer, {"agents": {"list": [main, two, one, *others]}})
    assert answer.message.startswith('config write rejected: "apiKey" is redacted')


def test_a_roster_is_replaced_or_merged(target: Target, peer: Peer) -> None:
    if target.expected.roster_is_map:
        change: dict[str, Any] = {"agents": {"entries": {"one": {"name": "Renamed", "heartbeat": None}}}}
    else:
        one = {
            "id": "one",
            "name": "Renamed",
            "heartbeat": None if target.expected.merges_lists else HEARTBEAT,
        }
        change = {"agents": {"list": [{"id": "main"}, one]}}
    merges = target.expected.roster_is_map or target.expected.merges_lists
    patched(target, peer, change)
    held = roster(target, target.stored_config())
    assert held["one"]["name"] == "Renamed"
    assert ("two" in held) is merges
    assert ("workspace" in held["one"]) is merges
    assert ("heartbeat" in held["one"]) is not merges


def test_a_list_merged_by_id_takes_new_items_at_its_end(target: Target, peer: Peer) -> None:
    if not target.expected.merges_lists:
        pytest.skip("lists are replaced")
    patched(target, peer, {"agents": {"list": []}})
    unnamed = patch(peer, {"agents": {"list": [{"name": "no id"}]}})
    place = f"agents.list.{len(roster(target, target.stored_config()))}.id"
    assert [issue["path"] for issue in unnamed.error["details"]["issues"]] == [place]
    patched(target, peer, {"agents": {"list": [{"id": "last"}, {"id": "one", "skills": []}]}})
    assert [*roster(target, target.stored_config())][-1] == "last"


def test_a_spaced_restart_comes_when_its_time_is_over(target: Target, peer: Peer) -> None:
    if not target.expected.spaces_restarts:
        pytest.skip("restarts are not spaced here")
    asked = time.monotonic()
    wait_s = patch(peer, {}, restartDelayMs=0).payload["restart"]["delayMs"] / 1000
    answered = time.monotonic()
    assert_restarts(peer, target)
    came = time.monotonic()
    assert came - asked > wait_s - 0.1
    assert came - answered < wait_s + target.timeout_s / 4


def test_changed_channels_restart_it_at_once_and_only_once(target: Target, peer: Peer) -> None:
    if not target.expected.restarts_on_patch:
        pytest.skip("a patch restarts nothing here")
    changed = visibility(target)
    changed["channels"]["defaults"]["heartbeat"]["showOk"] = True
    before = time.monotonic()
    planned = patch(peer, changed, restartDelayMs=0).payload["restart"]
    assert (planned["delayMs"] > 0) is target.expected.spaces_restarts, "the cooldown of the last restart"
    assert_restarts(peer, target)
    if target.expected.spaces_restarts:
        assert time.monotonic() - before < planned["delayMs"] / 1000
    with meet_when_up(target.url, target.token, within_s=target.timeout_s) as again:
        stay_open(target, again)


def test_a_restart_delay_is_kept(target: Target, peer: Peer) -> None:
    if not target.expected.restarts_on_patch or target.expected.spaces_restarts:
        pytest.skip("no restart, or one that waits for a cooldown")
    asked = time.monotonic()
    assert patch(peer, {}, restartDelayMs=1500).payload["restart"]["delayMs"] == 1500
    assert_restarts(peer, target)
    assert time.monotonic() - asked >= 1.5


def test_entries_cannot_be_dropped_by_a_patch(target: Target, peer: Peer) -> None:
    if not target.expected.roster_is_map:
        pytest.skip("only the map refuses to drop entries")
    answer = patch(peer, {"agents": {"entries": {"two": None}}})
    assert answer.error["code"] == "UNAVAILABLE"
    assert "would drop agent roster entries" in answer.message
    assert "two" in roster(target, target.stored_config())


def heartbeat_job(peer: Peer, agent_id: str) -> dict[str, Any] | None:
    jobs = peer.ask("cron.list", {"includeDisabled": True, "agentId": agent_id})["jobs"]
    assert {job.get("agentId", agent_id) for job in jobs} <= {agent_id}  # a plugin's own job names none
    return next((job for job in jobs if job.get("declarationKey") == f"heartbeat:{agent_id}"), None)


def test_a_heartbeat_block_makes_a_job_with_a_scratch(target: Target, peer: Peer) -> None:
    if not target.expected.roster_is_map:
        pytest.skip("heartbeat text is a file there")
    job = eventually(lambda: heartbeat_job(peer, "two"), target.timeout_s)
    assert job["agentId"] == "two"
    assert heartbeat_job(peer, "main") is None, "the first block ends the heartbeats of all without one"
    before = peer.ask("cron.scratch.get", {"jobId": job["id"]})
    assert before == {"scratch": None, "currentRevision": 0, "maxBytes": 262144}
    after = peer.ask("cron.scratch.set", {"jobId": job["id"], "content": "Look around. ü"})
    assert after["ok"] is True
    assert after["scratch"]["content"] == "Look around. ü"
    assert after["scratch"]["revision"] == after["currentRevision"] == 1
    read = peer.ask("cron.scratch.get", {"jobId": job["id"]})
    assert read == {name: value for name, value in after.items() if name != "ok"}


def test_a_scratch_is_fenced_by_its_revision(target: Target, peer: Peer) -> None:
    if not target.expected.roster_is_map:
        pytest.skip("heartbeat text is a file there")
    job = eventually(lambda: heartbeat_job(peer, "two"), target.timeout_s)
    revision = peer.ask("cron.scratch.set", {"jobId": job["id"], "content": "again"})["currentRevision"]
    stale = {"jobId": job["id"], "content": "lost", "expectedRevision": revision - 1}
    conflict = {"ok": False, "reason": "revision-conflict", "currentRevision": revision}
    assert peer.ask("cron.scratch.set", stale) == conflict
    assert peer.ask("cron.scratch.get", {"jobId": job["id"]})["scratch"]["content"] == "again"
    unknown = peer.call("cron.scratch.set", {"jobId": "nobody", "content": "x"})
    assert unknown.error["details"] == {"code": "CRON_JOB_NOT_FOUND", "jobId": "nobody"}


def test_patches_are_limited_by_device_refused_ones_too(target: Target) -> None:
    limit = target.expected.patches_a_minute
    with meet(target.url, target.token, device=(device := Device())) as peer:
        answers = [peer.call("config.patch", {"raw": "{}", "baseHash": "old"}) for _ in range(limit or 35)]
        assert {answer.error["code"] for answer in answers} == {"INVALID_REQUEST"}
        if limit is None:
            return
        limited = peer.call("config.patch", {"raw": "{}", "baseHash": "old"})
        assert limited.error["code"] == "UNAVAILABLE"
        assert limited.message.startswith("rate limit exceeded for config.patch; retry after ")
        assert limited.error["retryable"] is True
        assert 0 < limited.error["retryAfterMs"] <= 60_000
        assert limited.error["details"] == {"method": "config.patch", "limit": f"{limit} per 60s"}
    with (
        meet(target.url, target.token, device=device) as same,
        meet(target.url, target.token, device=Device()) as other,
    ):
        assert same.call("config.patch", {"raw": "{}", "baseHash": "old"}).error["code"] == "UNAVAILABLE"
        assert other.call("config.patch", {"raw": "{}", "baseHash": "old"}).error["code"] == "INVALID_REQUEST"
