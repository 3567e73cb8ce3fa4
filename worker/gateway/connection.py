"""One live connection to one gateway: many threads call, one thread reads (decisions.md D4)."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from worker.gateway.address import GatewayAddress
from worker.gateway.answers import seconds
from worker.gateway.concurrency_limit import ConcurrencyLimit
from worker.gateway.device import DeviceKey
from worker.gateway.error_mapping import from_response
from worker.gateway.error_payload import CallContext
from worker.gateway.errors import (
    BadAnswer,
    CallTimedOut,
    ConnectionLost,
    GatewayError,
    GatewayRestarting,
    GatewaySilent,
    GatewayUnreachable,
    PermanentGatewayError,
)
from worker.gateway.event_pace import EventPace
from worker.gateway.handshake import LARGEST_ANSWER, TOO_LARGE, complete_handshake, open_socket
from worker.gateway.idle_timeout import idle_timeout_s, wait_within_limits
from worker.gateway.protocol import Event, Hello, Response, Unreadable, decode, encode_request
from worker.send_permit import require_permit

__all__ = ["DEFAULT_DEADLINE_S", "Call", "CloseReason", "GatewayAddress", "GatewayConnection", "Hello"]

DEFAULT_DEADLINE_S = 30.0
MAX_IN_FLIGHT = 32
"""How many calls may be in flight: with more, the newest release answers "busy" (gateways.md 4)."""
_HANGS_AFTER_S = 10.0
"""A gateway that has sent nothing for this long hangs; one that has sent something is only slow with this
call."""

SILENT_TICKS = 2.5
"""A connection counts as dead after this many tick intervals without any frame."""

_CHECK_EVERY_S = 1.0
_SHORTEST_PAUSE_S = 0.02
_GRACE_AFTER_SHUTDOWN_S = 10.0
_GRACE_AFTER_UNREADABLE_S = 2.0


@dataclass(frozen=True)
class Call:
    """One request of `GatewayConnection.call_many`."""

    method: str
    params: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CloseReason:
    """Why a connection ended.

    ``code``: the close code; None if no close frame came. ``restart_announced``: the gateway announced a
    restart beforehand, which alone distinguishes a restart from a stop, since both close with 1012
    (gateways.md 5). ``restart_expected_s``: in how many seconds it expects to be back, if it said so.
    ``oversized``: we ended the connection because an answer was larger than LARGEST_ANSWER.
    """

    code: int | None
    reason: str
    shutdown_announced: bool = False
    restart_announced: bool = False
    restart_expected_s: float | None = None
    by_us: bool = False
    oversized: bool = False


class _Pending:
    """A call in flight; ``done`` is locked until its outcome is known."""

    __slots__ = ("context", "done", "id", "method", "outcome", "sent_at")

    def __init__(self, request_id: str, context: CallContext) -> None:
        self.id = request_id
        self.context = context
        self.method = context.method
        self.outcome: dict[str, Any] | GatewayError | None = None
        self.sent_at = 0.0
        self.done = threading.Lock()
        self.done.acquire()

    def wait(self, seconds: float) -> bool:
        return self.done.acquire(timeout=seconds)


class GatewayConnection:
    """An established connection. Safe for any number of threads; dead once `closed` is not None."""

    def __init__(
        self,
        websocket: ClientConnection,
        address: GatewayAddress,
        hello: Hello,
        *,
        most_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """Take over a socket whose handshake is done; use `open` to get a connection."""
        self.address = address
        self.hello = hello
        self._socket = websocket
        self._ids = itertools.count(1)
        self._limit = ConcurrencyLimit(most_in_flight)
        self._pending: dict[str, _Pending] = {}
        self._subscribers: tuple[Callable[[Event], None], ...] = ()
        self._state = threading.Lock()
        self._writing = threading.Lock()
        self._write_deadline: float | None = None
        self._last_frame_at = time.monotonic()
        self._unreadable_at = float("-inf")
        self._shutdown: Event | None = None
        self._shutdown_at = 0.0
        self._closing = False
        self._closed: CloseReason | None = None
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"gateway {address.url}", daemon=True)
        self._reader.start()

    @classmethod
    def open(
        cls,
        address: GatewayAddress,
        device: DeviceKey,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        most_in_flight: int = MAX_IN_FLIGHT,
    ) -> GatewayConnection:
        """Connect and complete the handshake within ``deadline_s`` seconds.

        ``most_in_flight``: how many calls may be in flight at once.

        Raises `GatewayUnreachable` or `GatewayRestarting` if waiting may help, and a `PermanentGatewayError`
        (`WrongToken` and `PairingRequired` among them) if a person must act.
        """
        deadline = time.monotonic() + deadline_s
        websocket = open_socket(address, deadline)
        try:
            hello = complete_handshake(websocket, address, device, deadline)
        except BaseException:
            _abort(websocket)
            websocket.wait_closed(1.0)
            raise
        return cls(websocket, address, hello, most_in_flight=most_in_flight)

    @property
    def closed(self) -> CloseReason | None:
        """Why the connection ended; None while it is alive."""
        return self._closed

    @property
    def in_flight(self) -> int:
        """Calls sent and not yet answered."""
        return len(self._pending)

    def wait_closed(self, timeout_s: float | None = None) -> CloseReason | None:
        """Wait at most ``timeout_s`` seconds for the connection to end; None if it is still alive."""
        self._ended.wait(timeout_s)
        return self._closed

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``callback`` with every `Event`; returns a function that ends the subscription.

        The callback runs on the reading thread, so it must be quick and must not call the gateway.
        """
        with self._state:
            self._subscribers = (*self._subscribers, callback)

        def unsubscribe() -> None:
            with self._state:
                self._subscribers = tuple(known for known in self._subscribers if known is not callback)

        return unsubscribe

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        """Send one request and wait for the payload of its answer, at most ``deadline_s`` seconds.

        ``send_by``: the instant, on the monotonic clock, after which the request is no longer sent.

        Raises a `GatewayError`; its ``may_have_had_effect`` says whether the call may have been carried out.
        """
        deadline = time.monotonic() + deadline_s
        sendable_until = deadline if send_by is None else min(deadline, send_by)
        outcome = self._await(self._send(method, params, sendable_until), deadline)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    def call_many(
        self, calls: Sequence[Call], *, deadline_s: float = DEFAULT_DEADLINE_S
    ) -> list[dict[str, Any] | GatewayError]:
        """Send many requests without waiting in between; returns the outcomes in the order of ``calls``.

        ``deadline_s`` is for all of them together. Errors are returned as values, so that one failure hides
        no other outcome.
        """
        deadline = time.monotonic() + deadline_s
        sent: list[_Pending | GatewayError] = []
        for call in calls:
            try:
                sent.append(self._send(call.method, call.params, deadline))
            except GatewayError as error:
                sent.append(error)
        return [item if isinstance(item, GatewayError) else self._await(item, deadline) for item in sent]

    def close(self) -> None:
        """End the connection; calls in flight fail with `ConnectionLost`. Idempotent."""
        self._closing = True
        if self._writing.acquire(timeout=1.0):
            try:
                self._socket.close()
            finally:
                self._writing.release()
        else:
            _abort(self._socket)
        if threading.current_thread() is not self._reader:
            self._reader.join()

    def __enter__(self) -> GatewayConnection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GatewayConnection {self.address.url} {'closed' if self._closed else 'open'}>"

    def _send(self, method: str, params: Mapping[str, Any] | None, deadline: float) -> _Pending:
        if threading.current_thread() is self._reader:
            raise RuntimeError("a subscriber must not call the gateway: it would wait for itself")
        pending = _Pending(str(next(self._ids)), CallContext.of(self.address.url, method, params))
        frame = encode_request(pending.id, method, params)
        if len(frame) > self.hello.max_payload:
            raise PermanentGatewayError(
                f"{method} is {len(frame)} bytes and was not sent: the gateway at {self.address.url}"
                f" takes at most {self.hello.max_payload}, so make the agent's largest file smaller",
                method=method,
            )
        if not self._limit.acquire(max(0.0, deadline - time.monotonic())):
            raise self._timed_out(method, sent=False)
        if not self._writing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._limit.release()
            raise self._timed_out(method, sent=False)
        try:
            if time.monotonic() >= deadline:
                self._limit.release()
                raise self._timed_out(method, sent=False)
            self._require_permit()
            self._register(pending)
            self._write(pending, frame, deadline)
        finally:
            self._writing.release()
        return pending

    def _require_permit(self) -> None:
        """Raise what the permit of the present work raises (`worker.send_permit`)."""
        try:
            require_permit()
        except BaseException:
            self._limit.release()
            raise

    def _register(self, pending: _Pending) -> None:
        """Add the call to the table, which guarantees it an outcome.

        Raises if the connection is closed or closing.
        """
        with self._state:
            if self._closed is None and self._shutdown is None and not self._closing:
                pending.sent_at = time.monotonic()
                self._pending[pending.id] = pending
                return
        self._limit.release()
        raise self._not_sent(pending.method)

    def _write(self, pending: _Pending, frame: bytes, deadline: float) -> None:
        self._write_deadline = deadline
        try:
            self._socket.send(frame, text=True)
        except ConnectionClosed:
            # The frame was not sent completely, so the gateway cannot have carried it out.
            if self._take(pending.id) is not None:
                self._limit.release()
            if time.monotonic() >= deadline:
                raise self._timed_out(pending.method, sent=False) from None
            raise self._not_sent(pending.method) from None
        finally:
            self._write_deadline = None

    def _not_sent(self, method: str) -> GatewayError:
        if self._shutdown is not None:
            return GatewayRestarting(
                f"the gateway at {self.address.url} is stopping or restarting, so {method} was not sent: if"
                " it does not come back, start it",
                method=method,
                retry_after_s=_expected_s(self._shutdown),
            )
        return GatewayUnreachable(
            f"the connection to the gateway at {self.address.url} is closed, so {method} was not sent: if"
            " this goes on, look at its log",
            method=method,
        )

    def _await(self, pending: _Pending, deadline: float) -> dict[str, Any] | GatewayError:
        if not self._wait(pending, deadline) and self._take(pending.id) is not None:
            self._limit.release_late(pending.sent_at)
            if self._unreadable_at >= pending.sent_at:
                return self._bad_answer(pending)
            return self._timed_out(pending.method, sent=True)
        if pending.outcome is None:
            # The reading thread has taken it from the table and is about to settle it.
            pending.done.acquire()
        assert pending.outcome is not None
        return pending.outcome

    def _wait(self, pending: _Pending, deadline: float) -> bool:
        """Whether the outcome came by the deadline and before the idle timeout."""
        return wait_within_limits(pending.wait, deadline, lambda: self._last_frame_at)

    def _take(self, request_id: str) -> _Pending | None:
        """Remove a call from the table; None if it is gone.

        The caller then settles it and frees its permit.
        """
        with self._state:
            return self._pending.pop(request_id, None)

    def _timed_out(self, method: str, *, sent: bool) -> CallTimedOut:
        gateway = f"the gateway at {self.address.url}"
        if sent:
            what = f"did not answer {method} in time{_effect_unknown(method)}"
        else:
            what = f"accepted no more calls in time, so {method} was not sent"
        silent = time.monotonic() - self._last_frame_at >= min(
            _HANGS_AFTER_S, idle_timeout_s() or _HANGS_AFTER_S
        )
        return (GatewaySilent if silent else CallTimedOut)(
            f"{gateway} {what}; if this goes on, look at the load of its machine", method=method, sent=sent
        )

    def _read(self) -> None:
        close = CloseReason(None, "reader failed")
        try:
            close = self._read_frames()
        finally:
            _abort(self._socket)
            self._end(close)

    def _read_frames(self) -> CloseReason:
        pace = EventPace(time.monotonic())
        while True:
            try:
                frame = self._socket.recv(timeout=_CHECK_EVERY_S)
            except TimeoutError:
                if (dead := self._reason_if_dead()) is not None:
                    return CloseReason(None, dead)
                self._settle_unreadable()
                continue
            except ConnectionClosed as closed:
                return _close_reason(closed)
            self._last_frame_at = time.monotonic()
            message = decode(frame)
            if isinstance(message, Response):
                self._settle(message)
            elif isinstance(message, Event):
                self._handle_event(message)
                if (pause_s := pace.pause_s(self._last_frame_at)) > _SHORTEST_PAUSE_S:
                    time.sleep(pause_s)
            elif isinstance(message, Unreadable):
                self._handle_unreadable(message)

    def _reason_if_dead(self) -> str | None:
        now = time.monotonic()
        write_deadline = self._write_deadline
        if write_deadline is not None and now > write_deadline:
            return "the gateway stopped reading"
        if now - self._last_frame_at > SILENT_TICKS * self.hello.tick_interval_s:
            return "the gateway fell silent"
        if self._shutdown is not None and now - self._shutdown_at > _GRACE_AFTER_SHUTDOWN_S:
            return "the gateway announced its end"
        return None

    def _settle(self, response: Response) -> None:
        pending = self._pending.get(response.id)
        if pending is None:
            return
        outcome: dict[str, Any] | GatewayError
        if response.payload is not None:
            outcome = response.payload
        elif response.error is not None:
            outcome = from_response(pending.context, response.error)
        else:
            outcome = self._bad_answer(pending)
        if self._take(response.id) is not None:
            self._limit.release_answered()
            pending.outcome = outcome
            pending.done.release()

    def _handle_unreadable(self, frame: Unreadable) -> None:
        """Settle the call that an unreadable frame names; if it names none, remember when it came."""
        if frame.id is not None:
            self._settle(Response(frame.id))
        else:
            self._unreadable_at = self._last_frame_at

    def _settle_unreadable(self) -> None:
        """Settle the only call in flight if an unreadable frame seems to be its answer.

        That is so if the frame came after the call was sent, and nothing has come since.
        """
        with self._state:
            waiting = list(self._pending.values())
        if len(waiting) != 1 or time.monotonic() - self._unreadable_at < _GRACE_AFTER_UNREADABLE_S:
            return
        if waiting[0].sent_at <= self._unreadable_at:
            self._settle(Response(waiting[0].id))

    @staticmethod
    def _bad_answer(pending: _Pending, how: str = "") -> BadAnswer:
        return BadAnswer(
            f"{pending.context.gateway} did not answer {pending.method} as the protocol requires{how}"
            f"{_effect_unknown(pending.method)}; check that gateways.url is an OpenClaw gateway's, and any"
            " proxy before it",
            method=pending.method,
        )

    def _handle_event(self, event: Event) -> None:
        if event.name == "shutdown":
            self._shutdown_at = time.monotonic()
            self._shutdown = event
        for callback in self._subscribers:
            # A subscriber's error must not end the reading thread, which every caller waits for.
            with contextlib.suppress(Exception):
                callback(event)

    def _end(self, close: CloseReason) -> None:
        expected_s = _expected_s(self._shutdown) if self._shutdown else None
        close = CloseReason(
            close.code,
            close.reason,
            shutdown_announced=self._shutdown is not None,
            restart_announced=expected_s is not None,
            restart_expected_s=expected_s,
            by_us=self._closing,
            oversized=close.oversized,
        )
        with self._state:
            self._closed = close
            orphans = list(self._pending.values())
            self._pending.clear()
        how = f"{close.code} {close.reason}".strip() if close.code else close.reason or "no close frame"
        for pending in orphans:
            if close.oversized and len(orphans) == 1:
                pending.outcome = self._bad_answer(
                    pending, f" (with more than the {LARGEST_ANSWER // 2**20} MB that we take)"
                )
            else:
                pending.outcome = ConnectionLost(
                    f"the connection to the gateway at {self.address.url} ended ({how}) before it answered"
                    f" {pending.method}{_effect_unknown(pending.method)}; if this goes on, look at its log",
                    method=pending.method,
                    code=str(close.code) if close.code else None,
                    retry_after_s=expected_s,
                )
            self._limit.release()
            pending.done.release()
        self._ended.set()


def _effect_unknown(method: str) -> str:
    """The words for a change whose answer is missing; "" for a read."""
    reads = method.endswith((".get", ".list", ".history"))
    return "" if reads else ": whether it was carried out is unknown"


def _close_reason(closed: ConnectionClosed) -> CloseReason:
    if closed.rcvd is not None:
        return CloseReason(closed.rcvd.code, closed.rcvd.reason)
    if closed.sent is not None:
        how = f"we had to close it: {closed.sent.code} {closed.sent.reason}".strip()
        return CloseReason(None, how, oversized=closed.sent.code == TOO_LARGE)
    return CloseReason(None, "")


def _expected_s(shutdown: Event) -> float | None:
    """Seconds until the gateway is back; None if it stops for good (gateways.md 5)."""
    expected_ms = shutdown.payload.get("restartExpectedMs")
    return 0.0 if isinstance(expected_ms, int) and expected_ms < 0 else seconds(expected_ms)


def _abort(websocket: ClientConnection) -> None:
    """Break the connection at once, even while another thread is stuck in a write."""
    # The plain socket's shutdown: the TLS one would touch state that another thread is using.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(websocket.socket, socket.SHUT_RDWR)
    # This frees websockets' receiving thread, which waits until its queue of frames is read.
    websocket.close_socket()
