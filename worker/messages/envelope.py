"""Normalizes a message into the one form that our tasks receive: a reduced form of Celery's protocol 2.

Anyone who can write to Redis can send anything. A message that names one of our tasks and has an id but
cannot be served still reaches its task, which records the refusal. Any other raises UnreadableMessage.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery.utils.saferepr import saferepr
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.message import Message
from kombu.serialization import dumps

from worker.escaped import escaped
from worker.jobs.kinds import KINDS
from worker.masking import mask
from worker.messages.unpacking import FAULT, LONGEST_BODY, TOO_LARGE

LONGEST_ID = 500
_SHOWN = 1024
_CANVAS: Mapping[str, str] = {
    "callbacks": "link",
    "errbacks": "link_error",
    "chain": "chain",
    "chord": "chord",
}
_PUBLIC = frozenset(kind.task for kind in KINDS.values())
_KEPT = ("agent_id", "request_id", "requested_by")
"""When the arguments are refused as a whole, these of them are recorded."""


class UnreadableMessage(Exception):
    """The message is not Celery's, or names no task or no id, so nothing about it can be recorded."""


@dataclass(frozen=True)
class _Content:
    """What a message holds, according to its sender. ``fault``: why that cannot be read."""

    headers: Mapping[str, Any]
    positional: Any = ()
    arguments: Any = None
    embed: Any = None
    fault: str | None = None


def normalize(message: Message, known: Container[str]) -> bool:
    """Normalize ``message``; returns whether its task is one of the ``known`` names.

    Its header ``refusal`` becomes the sentence that says why the message cannot be served, or None. Raises
    UnreadableMessage.
    """
    content = _read(message)
    headers = content.headers
    name, task_id = headers.get("task"), headers.get("id")
    if not isinstance(name, str):
        raise UnreadableMessage("it names no task")
    if not isinstance(task_id, str) or not task_id:
        raise UnreadableMessage(f"it is for {escaped(name, 100)} and has no id")
    if len(task_id) > LONGEST_ID:
        raise UnreadableMessage(f"it is for {escaped(name, 100)}, its id has {len(task_id)} characters")
    if name not in known:
        message.headers = dict(headers)
        return False
    fault = content.fault or _fault(name, content)
    body = None
    if fault is None:
        try:
            body = _body(content.positional, content.arguments)
        except (RecursionError, TypeError, ValueError) as error:
            fault = f"its arguments cannot be written as JSON ({type(error).__name__})"
    arguments = content.arguments if fault is None else _kept(content)
    message.headers = _headers(name, task_id, headers, arguments, f"{name}: {fault}." if fault else None)
    message.content_type, message.content_encoding, message.body = body or _body((), arguments)
    message._decoded_cache = None  # type: ignore[attr-defined]  # missing from its stubs
    return True


def _body(positional: Any, arguments: Any) -> tuple[str, str, Any]:
    return dumps((positional, arguments, dict.fromkeys(_CANVAS)), "json")


def _read(message: Message) -> _Content:
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    if (fault := headers.get(FAULT)) is not None:
        return _Content(headers, fault=fault)
    if len(message.body or "") > LONGEST_BODY:
        return _Content(headers, fault=TOO_LARGE)
    try:
        payload = message.decode()
    except Exception as error:
        return _Content(headers, fault=f"its body cannot be read as JSON ({type(error).__name__})")
    if isinstance(payload, Mapping):  # protocol 1, or its body with headers of protocol 2
        embed = {name: payload.get(name) for name in _CANVAS}
        return _Content({**payload, **headers}, payload.get("args") or (), payload.get("kwargs") or {}, embed)
    if isinstance(payload, list | tuple) and len(payload) == 3:
        return _Content(headers, *payload)
    return _Content(headers, fault="its body is not [args, kwargs, options]")


def _fault(name: str, content: _Content) -> str | None:
    """Why a message for one of our tasks cannot be served, as the end of a sentence; None if it can."""
    if not isinstance(content.positional, list | tuple):
        return f"args must be a list, not {type(content.positional).__name__}"
    if not isinstance(content.arguments, Mapping):
        return f"kwargs must be an object, not {type(content.arguments).__name__}"
    if not isinstance(content.embed, Mapping | None):
        return f"its options must be an object, not {type(content.embed).__name__}"
    canvas = [word for part, word in _CANVAS.items() if (content.embed or {}).get(part)]
    if canvas:
        return (
            f"it carries a {' and a '.join(canvas)}, and Celery's canvas does not work here: the outcome of a"
            " job is its row, not a result. Send it alone, and wait for the row (docs/enqueue.md)"
        )
    return _wrong_time(name, content.headers)


def _wrong_time(name: str, headers: Mapping[str, Any]) -> str | None:
    for field in ("eta", "expires"):
        given = headers.get(field)
        if given is None:
            continue
        try:
            at = _timestamp(given)
            at.timestamp()
        except (AttributeError, TypeError, ValueError, OverflowError):
            return f"{field} must be a time in ISO 8601, not {escaped(repr(given), 60)}"
        if field == "expires" and name in _PUBLIC and at <= datetime.now(UTC):
            return _expired(at)
    return None


def expiry_refusal(name: str, use_by: str | None) -> str | None:
    """The sentence that refuses a message whose ``use_by`` header is in the past; None for any other message.

    Tasks check it when they run: Celery ignores this header, and a message may expire while it waits inside a
    worker.
    """
    at = None if use_by is None else datetime.fromisoformat(use_by)
    return None if at is None or at > datetime.now(UTC) else f"{name}: {_expired(at)}."


def _expired(at: datetime) -> str:
    return f"it expired at {at.isoformat()}, before a worker took it"


def _timestamp(given: Any) -> datetime:
    at = maybe_iso8601(given) if isinstance(given, str) else None
    if at is None:
        raise TypeError
    return maybe_make_aware(at, UTC)


def _kept(content: _Content) -> dict[str, Any]:
    given = content.arguments if isinstance(content.arguments, Mapping) else {}
    return {name: given[name] for name in _KEPT if isinstance(given.get(name), str)}


def _headers(
    name: str, task_id: str, given: Mapping[str, Any], arguments: Any, refusal: str | None
) -> dict[str, Any]:
    def text(field: str) -> str | None:
        value = given.get(field)
        return escaped(value, _SHOWN) if isinstance(value, str) else None

    # Celery would drop a message that expires while it waits, and no row would say so.
    expires = given.get("expires") if refusal is None else None
    use_by = _timestamp(expires).isoformat() if expires is not None and name in _PUBLIC else None
    return {
        "lang": "py",
        "task": name,
        "id": task_id,
        **{field: text(field) for field in ("root_id", "parent_id", "group", "origin")},
        "eta": given.get("eta") if refusal is None else None,
        "expires": expires if use_by is None else None,
        "retries": 0,
        "timelimit": [None, None],
        # Flower shows these two.
        "argsrepr": mask(text("argsrepr") or "()"),
        "kwargsrepr": mask(text("kwargsrepr") or escaped(saferepr(arguments, _SHOWN), _SHOWN)),
        "ignore_result": True,
        "refusal": refusal,
        "use_by": use_by,
    }
