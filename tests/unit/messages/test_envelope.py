"""Every message is normalized to our form of protocol 2, is refused, or is dropped."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from worker.messages.envelope import UnreadableMessage, expiry_refusal, normalize
from worker.messages.framing import framing_fault
from worker.messages.unpacking import LONGEST_BODY, unpack

KNOWN = {"tasks.provision_agent", "tasks.sync_agent", "tasks.run_due_schedules"}
ID = "0f0d0f9c-6a0a-4b6b-9a57-3f1b0a6f5f10"


def message(body: Any, headers: Any, content_type: str = "application/json") -> Message:
    text = body if isinstance(body, str) else json.dumps(body)
    properties = {"delivery_tag": "x", "delivery_info": {}, "body_encoding": "utf-8"}
    payload = {
        "body": text,
        "headers": headers,
        "content-type": content_type,
        "content-encoding": "utf-8",
        "properties": properties,
    }
    channel: Any = Channel()
    made = Message(payload, channel=channel)
    made.accept = {"application/json"}
    return made


class Channel:
    def decode_body(self, body: Any, _: Any) -> Any:
        return body


def read(body: Any, headers: Any = None, **more: Any) -> tuple[dict[str, Any], Any]:
    got = message(body, {"task": "tasks.provision_agent", "id": ID, **(headers or {})}, **more)
    assert normalize(got, KNOWN)
    assert isinstance(got.headers, dict)
    return got.headers, got.decode()


EMPTY = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def test_an_ordinary_message_keeps_what_it_says() -> None:
    headers, payload = read([[], {"agent_id": "a"}, EMPTY], {"kwargsrepr": "{'agent_id': 'a'}", "group": "g"})
    assert payload == [[], {"agent_id": "a"}, EMPTY]
    assert (headers["task"], headers["id"], headers["refusal"]) == ("tasks.provision_agent", ID, None)
    assert (headers["kwargsrepr"], headers["group"]) == ("{'agent_id': 'a'}", "g")


@pytest.mark.parametrize(
    ("part", "word"),
    [("callbacks", "link"), ("errbacks", "link_error"), ("chain", "chain"), ("chord", "chord")],
)
def test_canvas_is_refused(part: str, word: str) -> None:
    headers, payload = read([[], {"agent_id": "a", "wake": True, "request_id": "r"}, {part: [{"task": "t"}]}])
    assert headers["refusal"].startswith(f"tasks.provision_agent: it carries a {word}, and Celery's canvas")
    assert payload == [[], {"agent_id": "a", "request_id": "r"}, EMPTY]


def test_all_that_is_carried_is_named() -> None:
    headers, _ = read([[], {}, {"callbacks": [1], "chord": {"task": "t"}}])
    assert "it carries a link and a chord, and" in headers["refusal"]


def test_headers_of_ours_cannot_be_sent() -> None:
    headers, _ = read([[], {}, None], {"refusal": "x", "timelimit": [1, 2], "retries": 7, "shadow": "y"})
    assert (headers["refusal"], headers["timelimit"], headers["retries"]) == (None, [None, None], 0)
    assert "shadow" not in headers


def test_options_that_a_newer_celery_sends_are_left_out() -> None:
    _, payload = read([[], {}, {**EMPTY, "args": "evil", "id": "another"}])
    assert payload[2] == EMPTY


@pytest.mark.parametrize("body", [[[], {}], {"x": 1}, 7, "x", None, [[], {}, EMPTY, 1], "", "[", "[" * 5000])
def test_a_body_of_another_form_is_refused_or_read_as_protocol_1(body: Any) -> None:
    headers, payload = read(body)
    assert payload == [[], {}, EMPTY]
    assert (headers["refusal"] is None) == isinstance(body, dict)


def test_another_content_type_is_refused() -> None:
    headers, _ = read("x", content_type="application/x-python-serialize")
    assert "its body cannot be read as JSON (ContentDisallowed)" in headers["refusal"]


def test_a_large_message_is_refused_unread() -> None:
    headers, payload = read([[], {"agent_id": "a", "x": "y" * LONGEST_BODY}, EMPTY])
    assert f"at most {LONGEST_BODY} bytes are taken" in headers["refusal"]
    assert payload == [[], {}, EMPTY]


PACKINGS: dict[str, Any] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}


def packed(packing: str, body: Any, pack: Callable[[bytes], bytes]) -> Message:
    """A message as a service with compression sends it."""
    text = base64.b64encode(pack(json.dumps(body).encode())).decode()
    entry = {
        "body": text,
        "headers": {"task": "tasks.provision_agent", "id": ID, "compression": packing},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {"delivery_tag": "x", "delivery_info": {}, "body_encoding": "base64"},
    }
    unpack(entry)
    channel: Any = Base64Channel()
    made = Message(entry, channel=channel)
    made.accept = {"application/json"}
    assert made.errors == []
    return made


class Base64Channel:
    def decode_body(self, body: Any, _: Any) -> Any:
        return base64.b64decode(body)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_compressed_message_is_unpacked(packing: str) -> None:
    got = packed(packing, [[], {"agent_id": "a"}, None], PACKINGS[packing])
    assert normalize(got, KNOWN)
    assert got.decode() == [[], {"agent_id": "a"}, EMPTY]


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_small_message_that_unpacks_to_a_large_one_is_refused(packing: str) -> None:
    got = packed(packing, [[], {"x": "y" * 3 * LONGEST_BODY}, EMPTY], PACKINGS[packing])
    assert normalize(got, KNOWN)
    assert isinstance(got.headers, dict)
    assert "its arguments are too large" in got.headers["refusal"]


@pytest.mark.parametrize("packing", [*PACKINGS, "application/x-nothing", "application/zstd"])
def test_a_message_that_cannot_be_unpacked_is_refused(packing: str) -> None:
    got = packed(packing, [[], {}, EMPTY], lambda body: b"no" + body)
    assert normalize(got, KNOWN)
    assert isinstance(got.headers, dict)
    assert "cannot be undone" in got.headers["refusal"]


@pytest.mark.parametrize("given", ["tomorrow", 7, [], "9" * 30, "2020-13-01"])
def test_an_invalid_time_is_refused(given: Any) -> None:
    for field in ("eta", "expires"):
        headers, _ = read([[], {}, EMPTY], {field: given})
        assert f"{field} must be a time in ISO 8601" in headers["refusal"]
        assert headers[field] is None


def test_what_has_expired_is_refused_unless_it_comes_again_by_itself() -> None:
    past = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    headers, _ = read([[], {}, EMPTY], {"expires": past})
    assert "it expired at" in headers["refusal"]
    headers, _ = read([[], {}, EMPTY], {"expires": past, "task": "tasks.run_due_schedules"})
    assert (headers["refusal"], headers["expires"]) == (None, past)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    waiting = read([[], {}, EMPTY], {"expires": later, "eta": later})[0]
    assert (waiting["refusal"], waiting["eta"]) == (None, later)
    # Celery would drop a message that expires in its worker and leave no row: the task checks the time.
    assert (waiting["expires"], waiting["use_by"]) == (None, later)
    assert expiry_refusal("tasks.provision_agent", later) is None
    assert "tasks.provision_agent: it expired at" in (expiry_refusal("tasks.provision_agent", past) or "")


def test_what_flower_shows_of_a_message_holds_no_secret() -> None:
    headers, payload = read(
        [[], {"password": "hunter2-horse"}, EMPTY], {"argsrepr": "('Bearer hunter2-horse',)"}
    )
    assert "hunter2" not in headers["kwargsrepr"] + headers["argsrepr"]
    assert payload[1] == {"password": "hunter2-horse"}


def test_an_argument_may_have_any_name() -> None:
    arguments = {"self": 1, "task": 2, "args": 3, "": 4, "agent_id": "a"}
    assert read([[], arguments, EMPTY])[1][1] == arguments


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "it names no task"),
        (None, "it names no task"),
        ({"task": 7, "id": ID}, "it names no task"),
        ({"task": "tasks.provision_agent"}, "it is for tasks.provision_agent and has no id"),
        ({"task": "tasks.provision_agent", "id": 7}, "it is for tasks.provision_agent and has no id"),
        ({"task": "t\nforged", "id": ""}, "it is for t\\nforged and has no id"),
        ({"task": "tasks.provision_agent", "id": "x" * 501}, "its id has 501 characters"),
    ],
)
def test_without_a_task_or_an_id_nothing_can_be_put_on_record(headers: Any, why: str) -> None:
    with pytest.raises(UnreadableMessage, match=why.replace("\\", r"\\")):
        normalize(message([[], {}, EMPTY], headers), KNOWN)


def test_the_task_of_another_application_is_not_ours() -> None:
    assert not normalize(message([[], {}, EMPTY], {"task": "celery.map", "id": ID}), KNOWN)
    assert not normalize(message({"task": "x.y", "id": ID, "args": [], "kwargs": {}}, {}), KNOWN)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "task",
    "id",
    "eta",
    "expires",
    "timelimit",
    "origin",
    "group",
    "retries",
    "compression",
    "kwargsrepr",
)


@settings(max_examples=40)
@given(JSON, st.dictionaries(st.sampled_from(NAMES), JSON), st.booleans())
def test_any_message_is_normalized_or_unreadable(body: Any, headers: dict[str, Any], ours: bool) -> None:
    if ours:
        headers |= {"task": "tasks.provision_agent", "id": ID}
    got = message(body, headers)
    try:
        normalize(got, KNOWN)
    except UnreadableMessage:
        assert not ours
    else:
        assert isinstance(got.headers, dict)


@settings(max_examples=40)
@given(JSON)
def test_no_entry_of_a_queue_raises(entry: Any) -> None:
    framing_fault(entry)
