"""What our client makes of each refusal: the type, and the sentence for a person (rules.md 44).

Whatever a release can be brought to say itself, it says itself. ``pytest -rP`` prints the sentences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import JSON
from tests.conformance.steps import eventually, registering
from tests.conformance.tampering_proxy import refusing, tampering_proxy
from tests.conformance.visitor import Visitor, read
from worker.gateway import errors, protocol
from worker.gateway.agent_files import AgentFiles, NotThereYetError
from worker.gateway.dialect import Dialect
from worker.lab.simulator import Simulator
from worker.lab.simulator.faults import Fault, Refuse, busy, not_found_yet, rate_limited

AGENT = "refused-files"


@pytest.fixture(scope="module")
def resident(target: Target) -> Iterator[Visitor]:
    """A visitor that is let in, and an agent on the roster."""
    with Visitor.to(target) as visitor:
        workspace = str(target.state_dir / "ws-refused")
        visitor.client.call("agents.create", {"name": AGENT, "workspace": workspace}, deadline_s=60)
        # 2026.9.6 may not find it for a moment after a single create too.
        eventually(lambda: _knows(visitor, AGENT), target.timeout_s)
        yield visitor


def _knows(visitor: Visitor, agent_id: str) -> bool:
    try:
        visitor.client.call("agents.files.list", {"agentId": agent_id})
    except errors.UnknownAgent:
        return False
    return True


@pytest.fixture
def behind(target: Target) -> Iterator[Any]:
    """Opens visitors who meet the target behind a proxy that tampers with the frames."""
    with ExitStack() as stack:

        def open_one(**changes: Any) -> Visitor:
            url = stack.enter_context(tampering_proxy(target.url, **changes))
            return stack.enter_context(Visitor.to(target, url=url))

        yield open_one


def test_a_wrong_token_names_both_places_of_the_right_one(target: Target) -> None:
    with Visitor(target.url, "wrong-hush-hush", release=target.release) as stranger:
        error = stranger.refused(says=("gateways.token", "gateway.auth.token"))
    assert type(error) is errors.WrongToken


def test_no_token_is_told_from_a_wrong_one(target: Target) -> None:
    with Visitor(target.url, None, release=target.release) as stranger:
        error = stranger.refused(says=("we have none", "gateways.token"))
    assert type(error) is errors.WrongToken


def test_rights_that_fall_short_name_the_scope_and_the_command(target: Target, behind: Any) -> None:
    def without_device(request: JSON) -> JSON:
        params = {k: v for k, v in request["params"].items() if k not in ("device", "scopes")}
        return {**request, "params": params} if request["method"] == "connect" else request

    error = behind(change=without_device).refused(says=("openclaw devices approve", "device show"))
    assert type(error) is errors.PermanentGatewayError
    scopes = ("operator.admin", target.expected.config_get_scope)
    assert any(f"gave our connection no {scope} scope" in str(error) for scope in scopes)


@pytest.mark.parametrize("ours", [(3, 3), (5, 6)])
def test_another_protocol_names_theirs_and_ours(
    target: Target, ours: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if ours[0] <= target.expected.protocol <= ours[1]:
        pytest.skip("this release speaks it")
    monkeypatch.setattr(protocol, "MIN_PROTOCOL", ours[0])
    monkeypatch.setattr(protocol, "MAX_PROTOCOL", ours[1])
    theirs = f"protocol {target.expected.protocol}"
    with Visitor.to(target) as stranger:
        error = stranger.refused(says=(theirs, f"{ours[0]} to {ours[1]}", "update"))
    assert type(error) is errors.PermanentGatewayError


def test_a_spoilt_signature_names_the_key_and_the_proxy(behind: Any) -> None:
    def spoilt(request: JSON) -> JSON:
        if request["method"] == "connect":
            request["params"]["device"]["signature"] = "A" * 86
        return request

    error = behind(change=spoilt).refused(says=("GATEWAY_DEVICE_KEY", "proxy"))
    assert type(error) is errors.PermanentGatewayError


def test_a_stale_hash_is_transient_and_a_rate_limit_says_when_it_ends(target: Target) -> None:
    limit = target.expected.patches_a_minute
    stale = {"raw": "{}", "baseHash": "old"}
    with Visitor.to(target) as visitor:
        for _ in range(limit or 5):
            error = visitor.refused("config.patch", stale, says=("read again",))
            assert type(error) is errors.StaleConfig
        if limit is None:
            return
        limited = visitor.refused("config.patch", stale, says=(f"{limit} per 60s",))
    assert type(limited) is errors.RateLimited
    assert limited.retry_after_s is not None
    assert 0 < limited.retry_after_s <= 60


LOCKED = Refuse(
    "unauthorized: too many failed authentication attempts (retry later)",
    "INVALID_REQUEST",
    retryable=True,
    retry_after_ms=299_834,
    details={"code": "AUTH_RATE_LIMITED"},
)
ORDERED: dict[str, tuple[Fault, type[errors.GatewayError], float | None, tuple[str, ...]]] = {
    "busy": (busy("config.get"), errors.TransientGatewayError, None, ("too busy", "config.get", "load")),
    "rate limit": (rate_limited("config.get"), errors.RateLimited, 40.0, ("3 per 60s", "wait 40 s")),
    "locked out": (Fault(LOCKED, "connect"), errors.RateLimited, 299.834, ("300 s", "wrong token")),
    "unavailable": (
        Fault(Refuse("config is being written"), "config.get"),
        errors.Unavailable,
        None,
        ("config is being written", "config.get"),
    ),
    "not found after a create": (
        not_found_yet("lately", "agents.files.list"),
        errors.UnknownAgent,
        None,
        ("lately",),
    ),
}


@pytest.mark.parametrize("kind", ORDERED)
def test_what_a_gateway_says_only_under_load(target: Target, behind: Any, kind: str) -> None:
    """Ordered where it is simulated; answered by the proxy in the same words before a real one."""
    fault, expected, retry_after_s, says = ORDERED[kind]
    method, refusal = fault.method or "config.get", fault.kind
    params = {"agentId": fault.agent} if fault.agent else {}
    if isinstance(target.process, Simulator):
        target.process.faults.schedule(fault)
        with Visitor.to(target) as visitor:
            error = visitor.refused("config.get" if method == "connect" else method, params, says=says)
    else:
        assert isinstance(refusal, Refuse)
        frame: JSON = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
        frame |= {"retryable": refusal.retryable or None, "retryAfterMs": refusal.retry_after_ms}
        visitor = behind(instead=refusing(method, frame))
        error = visitor.refused("config.get" if method == "connect" else method, params, says=says)
    assert type(error) is expected
    assert getattr(error, "retry_after_s", None) == retry_after_s


def test_not_found_straight_after_our_own_create_is_transient_and_names_the_agent(target: Target) -> None:
    with Visitor.to(target) as visitor:
        hello = visitor.client.hello()
        dialect = Dialect.from_hello(hello.server_version, hello.methods)
        with pytest.raises(NotThereYetError) as caught:
            AgentFiles(visitor.client, dialect, "mc-lately", fresh=True).read(["AGENTS.md"])
        read(caught.value, "mc-lately", visitor.url, secret=target.token, release=target.release)
        with pytest.raises(errors.UnknownAgent):
            AgentFiles(visitor.client, dialect, "mc-lately").read(["AGENTS.md"])


def test_an_unknown_agent_is_named_by_every_method(resident: Visitor) -> None:
    for method, params in {
        "agents.files.list": {"agentId": "nobody"},
        "agents.delete": {"agentId": "nobody"},
    }.items():
        error = resident.refused(method, params, says=("nobody", method, "provisioner provision"))
        assert type(error) is errors.UnknownAgent


def test_parameters_that_do_not_fit_are_named(resident: Visitor) -> None:
    params = {"agentId": AGENT, "name": "AGENTS.md", "content": "x", "zork": 1}
    error = resident.refused("agents.files.set", params, says=("agents.files.set", "zork", "report"))
    assert type(error) is errors.PermanentGatewayError


def test_an_unknown_method_is_named(resident: Visitor) -> None:
    error = resident.refused("no.such", says=("no.such", "update OpenClaw"))
    assert type(error) is errors.PermanentGatewayError


def test_a_file_that_the_release_does_not_keep_is_named(target: Target, resident: Visitor) -> None:
    for name in target.expected.refused_files:
        params = {"agentId": AGENT, "name": name, "content": "x"}
        error = resident.refused("agents.files.set", params, says=(name, AGENT))
        assert isinstance(error, errors.UnsupportedFile)
        assert error.name == name


def test_an_invalid_config_names_the_path_and_the_fault(target: Target, resident: Visitor) -> None:
    current = resident.client.call("config.get")
    change = registering(target, current["parsed"], {"bad": {"heartbeat": {"every": "banana"}}})
    params = {"raw": json.dumps(change), "baseHash": current["hash"]}
    error = resident.refused("config.patch", params, says=("heartbeat.every", "invalid duration", "correct"))
    assert isinstance(error, errors.InvalidConfig)
    assert len(error.issues) == 1


def test_a_frame_beyond_the_limit_is_not_sent(target: Target, resident: Visitor) -> None:
    params = {"agentId": AGENT, "name": "AGENTS.md", "content": "x" * target.expected.max_payload}
    error = resident.refused(
        "agents.files.set", params, says=(str(target.expected.max_payload), "was not sent")
    )
    assert type(error) is errors.PermanentGatewayError
