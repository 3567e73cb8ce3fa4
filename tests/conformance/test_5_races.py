"""Many config writes at once: lost in silence up to 2026.3, in turn since (gateways.md 4)."""

from __future__ import annotations

import json

from tests.conformance.conftest import Target
from tests.conformance.peer import Device, Peer, meet_when_up
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


CHANGED = "config changed since last load; re-run config.get and retry"
SCOPES = ["all", "direct", "group-all"]


def test_concurrent_patches_on_one_hash(target: Target, peer: Peer) -> None:
    accepted = accepted_at_once(target, peer)
    if not target.expected.restarts_on_patch:
        assert len(accepted) == 1
        return
    assert_restarts(peer, target)
    for _ in range(4):  # on a busy machine one may be written before the next has come in
        if accepted == SCOPES:
            break
        with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as other:
            accepted = accepted_at_once(target, other)
            assert_restarts(other, target)
    assert accepted == SCOPES


def accepted_at_once(target: Target, peer: Peer) -> list[str]:
    """Which of three patches on one hash the release takes; it refuses the others by name."""
    base = peer.ask("config.get")["hash"]
    patches = (
        {"raw": json.dumps({"messages": {"ackReactionScope": scope}}), "baseHash": base} for scope in SCOPES
    )
    answers = peer.call_at_once(("config.patch", patch) for patch in patches)
    assert {answer.message for answer in answers if not answer.ok} <= {CHANGED}
    accepted = [scope for scope, answer in zip(SCOPES, answers, strict=True) if answer.ok]
    assert target.stored_config()["messages"]["ackReactionScope"] in accepted
    return accepted


def test_the_file_may_change_by_hand(target: Target, peer: Peer) -> None:
    before = peer.ask("config.get")["hash"]
    path = target.state_dir / "openclaw.json"
    path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n\n", encoding="utf-8")
    assert eventually(lambda: peer.ask("config.get")["hash"] != before, target.timeout_s)
