"""The faults that can be scheduled: what goes wrong, with which requests, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Stage = Literal["upgrade", "challenge", "request"]
WrongShape = Literal["text", "list", "number", "empty", "absent", "frame is a list", "not JSON"]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request is refused with this error and not carried out. After a refused ``connect`` the connection
    is closed."""

    stage: ClassVar[Stage] = "request"
    message: str
    code: str = "UNAVAILABLE"
    retryable: bool = False
    retry_after_ms: int | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection ends without a close frame (1006) instead of the answer."""

    stage: ClassVar[Stage] = "request"
    carried_out: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """``seconds`` pass before the request is carried out, or afterwards, before its answer."""

    stage: ClassVar[Stage] = "request"
    seconds: float
    carried_out: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Like `Delay`, but until `ScheduledFault.release` is called."""

    stage: ClassVar[Stage] = "request"
    carried_out: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """The gateway restarts (1012) instead of answering, or ``delay_s`` seconds after the answer if
    ``answered``.

    ``down_s``: how long its port refuses connections; None: as the timings say. ``answered`` implies
    ``carried_out``.
    """

    stage: ClassVar[Stage] = "request"
    carried_out: bool = False
    answered: bool = False
    delay_s: float = 0.0
    down_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """The request is carried out, but the answer has a wrong shape.

    ``text``, ``list``, ``number`` and ``empty`` (an object without keys) replace the payload, ``absent``
    omits it; the other two corrupt the frame itself.
    """

    stage: ClassVar[Stage] = "request"
    shape: WrongShape


@dataclass(frozen=True, slots=True)
class Garble:
    """The request is carried out, but the answer is ``frame``, with ``{id}`` and ``{payload}`` filled in.

    That allows payloads that no serialiser writes: NaN, 1e999, a lone surrogate, any nesting.
    """

    stage: ClassVar[Stage] = "request"
    payload: str = "{}"
    frame: str = '{"type": "res", "id": "{id}", "ok": true, "payload": {payload}}'


@dataclass(frozen=True, slots=True)
class Late:
    """The request is carried out, but answered only after ``behind`` later requests on the connection.

    A caller that sends nothing more gets no answer.
    """

    stage: ClassVar[Stage] = "request"
    behind: int = 1


@dataclass(frozen=True, slots=True)
class Twice:
    """The request is carried out once, and answered twice."""

    stage: ClassVar[Stage] = "request"


@dataclass(frozen=True, slots=True)
class Stray:
    """The request is carried out and answered, after ``answers`` answers to requests that nobody made."""

    stage: ClassVar[Stage] = "request"
    answers: int = 3


@dataclass(frozen=True, slots=True)
class Flood:
    """The request is carried out and answered, after ``events`` events with a text of ``size`` characters."""

    stage: ClassVar[Stage] = "request"
    events: int = 1000
    size: int = 1000


@dataclass(frozen=True, slots=True)
class Oversized:
    """The request is carried out, but the answer has ``megabytes`` (of 2^20 bytes) more than usual."""

    stage: ClassVar[Stage] = "request"
    megabytes: int = 51


@dataclass(frozen=True, slots=True)
class Endless:
    """The request is carried out and answered, but if the answer is a page of a list, it says that more
    follow."""

    stage: ClassVar[Stage] = "request"


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer, and nothing more is sent on the connection, not even ticks and events. It stays open."""

    stage: ClassVar[Stage] = "request"
    carried_out: bool = False


@dataclass(frozen=True, slots=True)
class FakeReply:
    """The request is answered ok but not carried out. ``payload``: None for what a gateway would answer."""

    stage: ClassVar[Stage] = "request"
    payload: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RefuseConnections:
    """The request is carried out and answered, but from its arrival the port refuses connections for
    ``seconds``.

    Open connections stay open.
    """

    stage: ClassVar[Stage] = "request"
    seconds: float


@dataclass(frozen=True, slots=True)
class RefuseUpgrade:
    """The upgrade to a WebSocket is answered with an HTTP status."""

    stage: ClassVar[Stage] = "upgrade"
    status: int = 503


@dataclass(frozen=True, slots=True)
class NoChallenge:
    """The connection opens, but no challenge is sent."""

    stage: ClassVar[Stage] = "challenge"


@dataclass(frozen=True, slots=True)
class GarbageChallenge:
    """``text`` is sent instead of the challenge."""

    stage: ClassVar[Stage] = "challenge"
    text: str = "nonsense"


Kind = (
    Refuse
    | Drop
    | Delay
    | Hold
    | Restart
    | Wrong
    | Garble
    | Late
    | Twice
    | Stray
    | Flood
    | Oversized
    | Endless
    | Silence
    | FakeReply
    | RefuseConnections
    | RefuseUpgrade
    | NoChallenge
    | GarbageChallenge
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``kind`` happens to the ``nth`` matching request and the ``times - 1`` after it.

    A request matches by its ``method`` (``connect`` is one; None: any but ``connect``), by the ``agent`` that
    it names (an id, or a session key's) and by the ``file`` that it names; None matches all. ``times`` None:
    always. Kinds that affect a connection before its first request have no method, agent or file.
    """

    kind: Kind
    method: str | None = None
    agent: str | None = None
    file: str | None = None
    nth: int = 1
    times: int | None = 1

    def __post_init__(self) -> None:
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise ValueError("a fault's nth and times count from 1")
        if self.kind.stage != "request" and (self.method or self.agent or self.file):
            raise ValueError(f"{type(self.kind).__name__} strikes a connection, which names no method")

    def fits(self, stage: Stage, method: str, names: Mapping[str, str]) -> bool:
        """Whether this request, or this stage of a connection, matches."""
        if self.kind.stage != stage:
            return False
        if stage != "request":
            return True
        if self.method is None and method == "connect":
            return False
        fits_method = self.method in (None, method)
        fits_agent = self.agent is None or self.agent == _agent_in(method, names)
        return fits_method and fits_agent and (self.file is None or self.file == names.get("name"))


def busy(method: str | None = None, *, agent: str | None = None, nth: int = 1, times: int = 1) -> Fault:
    """The error with which 2026.9.6 answers some calls of a burst (gateways.md 4)."""
    kind = Refuse("The server is busy. Please try again in a moment.", retryable=True)
    return Fault(kind, method, agent, nth=nth, times=times)


def rate_limited(method: str = "config.patch", *, after_s: int = 40, nth: int = 1, times: int = 1) -> Fault:
    """The error of the limit on config writes, used up by other connections of the device (gateways.md 4)."""
    kind = Refuse(
        f"rate limit exceeded for {method}; retry after {after_s}s",
        retryable=True,
        retry_after_ms=after_s * 1000,
        details={"method": method, "limit": "3 per 60s"},
    )
    return Fault(kind, method, nth=nth, times=times)


def not_found_yet(agent: str, method: str | None = None, *, times: int = 1) -> Fault:
    """2026.9.6's error for an agent that was just created: its running config lags its file (gateways.md
    4)."""
    is_wake = method == "chat.send"
    words = f'Agent "{agent}" no longer exists in configuration' if is_wake else f'agent "{agent}" not found'
    return Fault(Refuse(words, "INVALID_REQUEST"), method, agent, times=times)


def restart_after_burst(creates: int = 60, *, delay_s: float = 3.0) -> Fault:
    """The restart that 2026.9.6 makes after a burst of agents.create (gateways.md 4)."""
    return Fault(Restart(answered=True, delay_s=delay_s), "agents.create", nth=creates)


def _agent_in(method: str, names: Mapping[str, str]) -> str | None:
    if "agentId" in names:
        return names["agentId"]
    key = names.get("sessionKey") or names.get("key")
    if key is not None:
        parts = key.split(":")
        return parts[1] if len(parts) > 2 else None
    return names.get("name") if method == "agents.create" else None
