"""Many config writes at once: lost in silence up to 2026.3, in turn since (gateway.md 4)."""

from __future__ import annotations

import json

from tests.conformance.conftest import Target
from tests.conformance.peer import Peer
from tests.conformance.steps import assert_restarts, eventually, roster


def test_concurrent_creates(target: Target, peer: Peer) -> None:
    names = [f"race-{number}" for number in range(6)]
    answers = peer.call_at_once(
        ("agents.create", {"name": name, "workspace": str(target.state_dir / f"ws-{name}")}) for name in names
    )
    assert all(answer.ok for answer in answers), [answer.error for answer in answers]
    kept = set(names) & set(roster(target, target.stored_config()))
    if target.expected.loses_concurrent_creates:
        assert 1 <= len(kept) < len(names)
    else:
        assert kept == set(names)


def test_concurrent_patches_on_one_hash(target: Target, peer: Peer) -> None:
    base = peer.ask("config.get")["hash"]
    scopes = ["all", "direct", "group-all"]
    answers = peer.call_at_once(
        (
            "config.patch",
            {"raw": json.dumps({"messages": {"ackReactionScope": scope}}), "baseHash": base},
        )
        for scope in scopes
    )
    accepted = [scope for scope, answer in zip(scopes, answers, strict=True) if answer.ok]
    refused = {answer.message for answer in answers if not answer.ok}
    stored = target.stored_config()["messages"]["ackReactionScope"]
    assert stored in accepted
    if not target.expected.checks_concurrent_patches:
        assert accepted == scopes
        if target.expected.restarts_on_patch:
            assert_restarts(peer, target)
    else:
        assert len(accepted) == 1
        assert refused == {"config changed since last load; re-run config.get and retry"}


def test_the_file_may_change_by_hand(target: Target, peer: Peer) -> None:
    before = peer.ask("config.get")["hash"]
    path = target.state_dir / "openclaw.json"
    path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n\n", encoding="utf-8")
    assert eventually(lambda: peer.ask("config.get")["hash"] != before, target.patience_s)
