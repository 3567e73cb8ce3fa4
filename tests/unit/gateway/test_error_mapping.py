"""Each refusal that real gateways sent becomes the error type and the sentence that fit it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PermanentError, TransientError
from worker.gateway import errors
from worker.gateway.error_mapping import from_close
from worker.gateway.error_mapping import from_response as response_of
from worker.gateway.error_payload import CallContext

RESTART = {"code": "UNAVAILABLE", "message": "gateway starting; retry shortly", "retryable": True}
LOCKED = "unauthorized: too many failed authentication attempts (retry later)"
MISMATCH = "unauthorized: gateway token mismatch (open the dashboard and paste the token)"
STALE = "config changed since last load; re-run config.get and retry"


URL = "ws://gateway.example:18789"


def from_response(method: str, error: dict[str, Any], **params: str) -> errors.GatewayError:
    return response_of(CallContext.of(URL, method, params), error)


def invalid(message: str, **more: Any) -> dict[str, Any]:
    return {"code": "INVALID_REQUEST", "message": message, **more}


TYPE_OF: Mapping[str, type[errors.GatewayError]] = {
    "locks our address out for 300 s": errors.RateLimited,
    "locks our address out for some minutes": errors.RateLimited,
    "is too busy for some.method": errors.TransientGatewayError,
}
"""The types of refusals that share theirs with others; without an entry, it is PermanentGatewayError."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (invalid(MISMATCH), errors.WrongToken),
        (invalid("nope", details={"code": "AUTH_TOKEN_MISMATCH"}), errors.WrongToken),
        (invalid("unauthorized: gateway token missing"), errors.WrongToken),
        (invalid(LOCKED, retryable=True, retryAfterMs=299834), "locks our address out for 300 s"),
        (invalid("x", details={"code": "AUTH_RATE_LIMITED"}), "locks our address out for some minutes"),
        (invalid("missing scope: operator.admin"), "no operator.admin scope"),
        (
            {"code": "FORBIDDEN", "message": "x", "details": {"code": "MISSING_SCOPE"}},
            "no operator.admin scope",
        ),
        ({"code": "NOT_PAIRED", "message": "pairing required"}, errors.PairingRequired),
        ({"code": "NOT_PAIRED", "message": "device identity required"}, "our device's signature"),
        (invalid("device signature expired"), "synchronize both with NTP"),
        (invalid("device signature invalid"), "check GATEWAY_DEVICE_KEY"),
        (invalid("protocol mismatch", details={"expectedProtocol": 5}), "speaks protocol 5"),
        (invalid(STALE), errors.StaleConfig),
        (invalid("config base hash required; re-run config.get and retry"), errors.StaleConfig),
        (
            {"code": "UNAVAILABLE", "message": "rate limit exceeded for config.patch; retry after 40s"},
            errors.RateLimited,
        ),
        (
            {"code": "UNAVAILABLE", "message": "The server is busy. Please try again in a moment."},
            "is too busy for some.method",
        ),
        (RESTART, errors.GatewayRestarting),
        ({"code": "UNAVAILABLE", "message": "Agent failed before reply: no model"}, errors.Unavailable),
        (
            {
                "code": "UNAVAILABLE",
                "message": "PluginInstanceUnavailableError: Plugin openai was reloaded or disabled; use its"
                " current tools.",
            },
            errors.Unavailable,
        ),
        ({"code": "UNAVAILABLE", "message": "no more", "retryable": False}, errors.Refused),
        (
            {"code": "UNAVAILABLE", "message": "Config write would drop agent roster entries: a"},
            errors.Refused,
        ),
        ({"code": "SOMETHING_NEW", "message": "wait", "retryable": True}, errors.Unavailable),
        ({"code": "SOMETHING_NEW", "message": "wait", "retryAfterMs": 100}, errors.Unavailable),
        ({"code": "SOMETHING_NEW", "message": "no"}, errors.Refused),
        (invalid('unsupported file "BOOT.md"'), errors.UnsupportedFile),
        (invalid('unsafe workspace file "AGENTS.md"'), errors.UnsafeFile),
        (invalid('unsafe workspace file "AGENTS.md" (path escapes workspace root)'), errors.FileRefused),
        *(
            ({"code": "UNAVAILABLE", "message": f"Error: {code}: whatever, open '/x': code={code}"}, kind)
            for code, kind in (
                ("EISDIR", "a folder stands in the place of a file"),
                ("EEXIST", "a file stands in the place of a folder"),
                ("EROFS", "mount it writable"),
                ("ENOSPC", "free space there"),
                ("EACCES", "give the user that OpenClaw runs as access"),
                ("EMFILE", errors.Unavailable),
            )
        ),
        *(
            ({"code": "UNAVAILABLE", "message": message}, "on its machine")
            for message in (
                "config write failed: Error: ENOSPC: no space left on device, write",
                "Error: EIO: i/o error, read",
                "could not create workspace: Permission denied (os error 13)",
                "mkdir /data: Read-only file system",
                "SOUL.md: Is a directory",
            )
        ),
        ({"code": "UNAVAILABLE", "message": "the word EACCES stands alone"}, errors.Unavailable),
        (invalid("unknown agent id"), errors.UnknownAgent),
        (invalid('agent "mc-1" not found'), errors.UnknownAgent),
        (invalid('Agent "mc-1" no longer exists in configuration'), errors.UnknownAgent),
        (invalid("unknown method: cron.scratch.get"), "has no method some.method"),
        (invalid('agent "mc-1" already exists'), errors.AgentExists),
        (invalid("Cannot delete the main session (agent:x:main)."), errors.Refused),
        (invalid("x", details={"type": "agent_file_conflict", "currentHash": "ab"}), errors.FileConflict),
        (
            invalid("invalid agents.files.set params: at root: unexpected property 'x'"),
            "does not take some.method as we send it",
        ),
        (
            invalid("invalid config.patch params: raw (string) required"),
            "does not take some.method as we send it",
        ),
        (invalid("invalid config"), errors.InvalidConfig),
        (invalid("invalid config; fix before patching"), errors.InvalidConfig),
    ],
)
def test_seen_refusals_have_their_type_or_their_words(
    error: dict[str, Any], expected: type[errors.GatewayError] | str
) -> None:
    refusal = from_response("some.method", error)
    if isinstance(expected, str):
        assert expected in str(refusal)
        assert type(refusal) is TYPE_OF.get(expected, errors.PermanentGatewayError)
    else:
        assert type(refusal) is expected
    assert refusal.method == "some.method"
    assert refusal.code == error["code"]
    assert refusal.details == error.get("details", {})


def test_what_stopped_an_agents_run_is_no_refusal_of_the_host() -> None:
    said = {"code": "UNAVAILABLE", "message": "Agent failed before reply: EACCES: permission denied, open"}
    assert type(from_response("chat.send", said)) is errors.Unavailable


def test_time_to_wait_comes_from_the_field_else_from_the_words() -> None:
    words = {"code": "UNAVAILABLE", "message": "rate limit exceeded for config.patch; retry after 40s"}
    by_words = from_response("config.patch", words)
    by_field = from_response("config.patch", {**words, "retryAfterMs": 39500})
    locked = from_response("connect", invalid(LOCKED, retryable=True, retryAfterMs=299834))
    assert isinstance(by_words, errors.RateLimited)
    assert by_words.retry_after_s == 40
    assert isinstance(by_field, errors.RateLimited)
    assert by_field.retry_after_s == 39.5
    assert isinstance(locked, errors.RateLimited)
    assert locked.retry_after_s == pytest.approx(299.834)


@pytest.mark.parametrize(
    ("message", "issues"),
    [
        ('agents: Unrecognized key: "list"', (("agents", 'Unrecognized key: "list"'),)),
        (
            'agents.entries.mc-1.heartbeat: Unrecognized key: "x"; agents.entries.b.heartbeat.every: Bad;'
            " very bad (+2 more issues)",
            (
                ("agents.entries.mc-1.heartbeat", 'Unrecognized key: "x"'),
                ("agents.entries.b.heartbeat.every", "Bad; very bad"),
            ),
        ),
        ("<root>: Invalid input", (("<root>", "Invalid input"),)),
        ("something is wrong", (("", "something is wrong"),)),
    ],
)
def test_config_issues_are_read_from_the_message(message: str, issues: tuple[tuple[str, str], ...]) -> None:
    refusal = from_response("config.patch", invalid(f"invalid config: {message}"))
    assert isinstance(refusal, errors.InvalidConfig)
    assert refusal.issues == issues


def test_config_issues_are_read_from_the_details_first() -> None:
    listed = [{"path": "agents.list.0", "message": "Bad"}, {"path": ["a", 1], "message": ""}, "junk"]
    refusal = from_response("config.patch", invalid("invalid config: x: y", details={"issues": listed}))
    assert isinstance(refusal, errors.InvalidConfig)
    assert refusal.issues == (("agents.list.0", "Bad"), ("a.1", "(no message)"))
    assert "agents.list.0: Bad" in str(refusal)


def test_pairing_names_the_request_the_device_and_the_command() -> None:
    details = {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "r-1", "deviceId": "d-1"}
    refusal = from_response("connect", {"code": "NOT_PAIRED", "message": "x", "details": details})
    assert isinstance(refusal, errors.PairingRequired)
    assert (refusal.request_id, refusal.device_id) == ("r-1", "d-1")
    assert "openclaw devices approve r-1" in str(refusal)
    assert "d-1" in str(refusal)


def test_missing_scope_and_unsupported_file_name_what_is_missing() -> None:
    scope = from_response("x", invalid("missing scope: operator.write"))
    file = from_response("agents.files.set", invalid('unsupported file "BOOT.md"'))
    assert "no operator.write scope" in str(scope)
    assert isinstance(file, errors.UnsupportedFile)
    assert file.name == "BOOT.md"


def test_missing_token_and_wrong_token_have_different_cures() -> None:
    wrong = str(from_response("connect", invalid(MISMATCH)))
    none = str(from_response("connect", invalid("unauthorized: gateway token missing")))
    assert "does not accept our token" in wrong
    assert "we have none" in none


@pytest.mark.parametrize(
    ("error", "mode"),
    [
        (
            # as 2026.9.6 said it
            invalid(
                "unauthorized",
                details={"code": "AUTH_UNAUTHORIZED", "authReason": "trusted_proxy_untrusted_source"},
            ),
            "trusted-proxy",
        ),
        (invalid("unauthorized: trusted_proxy_user_missing"), "trusted-proxy"),
        (invalid("unauthorized", details={"code": "AUTH_PASSWORD_MISSING"}), "password"),
    ],
)
def test_a_mode_that_takes_no_token_is_named_with_its_cure(error: Any, mode: str) -> None:
    refusal = from_response("connect", error)
    assert isinstance(refusal, errors.WrongToken)
    assert mode in str(refusal)
    assert "set gateway.auth.mode to token" in str(refusal)


@pytest.mark.parametrize(
    ("after_ms", "seconds"),
    [
        (500, 0.5),
        (10**400, 600.0),
        (float("inf"), 600.0),
        (float("nan"), None),
        (-1, None),
        (True, None),
    ],
)
def test_time_to_wait_is_at_most_ten_minutes_whatever_is_sent(after_ms: float, seconds: float | None) -> None:
    refusal = from_response("x", {**RESTART, "retryAfterMs": after_ms})
    assert isinstance(refusal, errors.GatewayRestarting)
    assert refusal.retry_after_s == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "code": JSON | st.sampled_from(["UNAVAILABLE", "INVALID_REQUEST", "NOT_PAIRED"]),
            "message": JSON | st.sampled_from(["invalid config: ", "rate limit exceeded", "unauthorized"]),
            "details": JSON | st.fixed_dictionaries({"code": JSON, "issues": JSON, "missingScope": JSON}),
            "retryable": JSON,
            "retryAfterMs": JSON,
        },
    )
)
def test_any_error_object_becomes_an_error(error: dict[str, Any]) -> None:
    refusal = from_response("x", error)
    assert isinstance(refusal, TransientError) != isinstance(refusal, PermanentError)
    assert str(refusal)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (None, "", errors.GatewayUnreachable),
        (1000, "", errors.GatewayUnreachable),
        (1001, "", errors.GatewayUnreachable),
        (1006, "", errors.GatewayUnreachable),
        (1012, "service restart", errors.GatewayRestarting),
        (1013, "", errors.GatewayRestarting),
        (1002, "protocol mismatch", errors.PermanentGatewayError),
        (1008, "unauthorized: token mismatch", errors.WrongToken),
        (1008, "pairing required", errors.PairingRequired),
        (1008, "", errors.Refused),
    ],
)
def test_close_before_the_hello_is_judged_by_its_code(
    code: int | None, reason: str, expected: type[errors.GatewayError]
) -> None:
    assert type(from_close(CallContext(URL, "connect"), code, reason)) is expected


def test_errors_survive_copying_and_pickling_with_all_they_carry() -> None:
    locked = from_response("connect", invalid(LOCKED, retryable=True, retryAfterMs=1000))
    for twin in (copy.copy(locked), pickle.loads(pickle.dumps(locked))):
        assert type(twin) is errors.RateLimited
        assert str(twin) == str(locked)
        assert twin.retry_after_s == 1.0
        assert twin.method == "connect"
