"""Opens a connection from a URL: TCP, TLS, upgrade, challenge, ``connect``, hello (gateways.md 1)."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.sync.client import ClientConnection, connect

from worker.gateway.address import GatewayAddress
from worker.gateway.device import DeviceKey
from worker.gateway.error_builders import without_scope
from worker.gateway.error_mapping import from_close, from_response
from worker.gateway.error_payload import CallContext
from worker.gateway.errors import (
    BadAddress,
    BadAnswer,
    GatewayError,
    GatewayUnreachable,
    PairingRequired,
    PermanentGatewayError,
)
from worker.gateway.protocol import (
    ADMIN_SCOPE,
    DEFAULT_MAX_PAYLOAD,
    Event,
    Hello,
    Response,
    Unreadable,
    connect_params,
    decode,
    encode_request,
)

# An answer may echo a whole frame of ours with more around it, so it may exceed the limit for frames.
LARGEST_ANSWER = 2 * DEFAULT_MAX_PAYLOAD
TOO_LARGE = 1009
"""The code with which we close the connection when an answer is larger than LARGEST_ANSWER."""
_UNREADABLE = (1002, 1007, TOO_LARGE)
_GRACE_S = 2.0
"""How long to wait for a valid frame after an unreadable one, in seconds."""
_CONNECT_ID = "connect"

# websockets logs frames (so tokens) at DEBUG and our own aborts as errors: log neither (rules.md 29).
_wire_log = logging.getLogger("worker.gateway.wire")
_wire_log.setLevel(logging.CRITICAL)


def open_socket(address: GatewayAddress, deadline: float) -> ClientConnection:
    """Open a WebSocket. ``deadline``: on the monotonic clock, in seconds.

    Raises `GatewayUnreachable` if waiting may help, else `PermanentGatewayError`, such as `BadAddress`.
    """
    try:
        return connect(
            address.url,
            ssl=_tls(address),
            # A proxy from the environment makes no sense for a gateway on this machine.
            proxy=None if address.is_loopback else True,
            compression=None,
            open_timeout=max(0.001, deadline - time.monotonic()),
            close_timeout=2,
            # The gateway's own ticks show that it is alive; a pong depends on its event loop just as much.
            ping_interval=None,
            max_size=LARGEST_ANSWER,
            max_queue=64,
            user_agent_header="openclaw-provisioner",
            logger=_wire_log,
            create_connection=_NoRedirects,
            legacy=True,
        )
    except (OSError, EOFError, ConnectionClosed, InvalidHandshake, InvalidURI) as error:
        raise _open_error(address, error) from None


class _NoRedirects(ClientConnection):
    """Treats a redirect as an error: it would send the token to a host that was not configured."""

    def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            error.response.headers.pop("Location", None)
            raise
        except (TimeoutError, AssertionError) as error:
            # websockets keeps waiting for the end of a response that it has already rejected, and fails on a
            # response that arrives before its request was sent.
            if self.protocol.handshake_exc is not None:
                raise self.protocol.handshake_exc from None
            if isinstance(error, TimeoutError):
                raise
            raise EOFError from None


def _tls(address: GatewayAddress) -> ssl.SSLContext | None:
    if not address.url.startswith("wss:"):
        return None
    context = ssl.create_default_context()
    if address.allow_insecure_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _open_error(address: GatewayAddress, error: Exception) -> GatewayError:
    url = address.url
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermanentGatewayError(
            f"the certificate of the gateway at {url} is not trusted ({error.verify_message}): give it one"
            " that is, or set allow_insecure_tls for this gateway",
            method="connect",
        )
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return PermanentGatewayError(
            f"the gateway at {url} does not speak TLS: write {url.replace('wss:', 'ws:', 1)} in gateways.url",
            method="connect",
        )
    if isinstance(error, InvalidURI):
        return BadAddress(
            f"the gateway's URL {url} cannot be used: write gateways.url as in ws://host:18789",
            method="connect",
        )
    if isinstance(error, InvalidStatus):
        return _bad_status(url, error.response.status_code)
    if isinstance(error, InvalidProxy | ProxyError):
        return GatewayUnreachable(
            f"the proxy on the way to the gateway at {url} fails ({type(error).__name__}):"
            " check HTTPS_PROXY, or name the gateway's host in NO_PROXY",
            method="connect",
        )
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError | OSError):
        error = error.__cause__
    if isinstance(error, InvalidHandshake):
        return PermanentGatewayError(
            f"what answers at {url} is not a WebSocket server: check host and port in gateways.url"
            " (a gateway behind TLS needs wss://)",
            method="connect",
        )
    how = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, EOFError | ConnectionClosed):
        how = "it closed the connection"
        if url.startswith("ws:"):
            how += "; a gateway behind TLS needs wss://"
    if isinstance(error, ssl.SSLError):
        how = f"the TLS handshake failed: {_tls_reason(error)}; a gateway without TLS needs ws://"
    return GatewayUnreachable(
        f"the gateway at {url} cannot be reached ({how}): check that it runs, gateways.url, and the network",
        method="connect",
    )


def _tls_reason(error: ssl.SSLError) -> str:
    return (error.reason or "no reason given").replace("_", " ").lower()


def _bad_status(url: str, status: int) -> GatewayError:
    if status in (408, 425, 429) or status >= 500:
        return GatewayUnreachable(
            f"the gateway at {url} answers with HTTP {status}: it, or a proxy before it, is not ready; if"
            " this goes on, look at their logs",
            method="connect",
            code=str(status),
        )
    if status in (401, 403, 407):
        what = "a proxy before the gateway wants a login that we do not have; let us through there"
    elif 300 <= status < 400:
        what = "it points elsewhere, where we do not take the token; write the final address in gateways.url"
    else:
        what = "check host, port and path in gateways.url"
    return PermanentGatewayError(
        f"what answers at {url} refuses a WebSocket with HTTP {status}: {what}",
        method="connect",
        code=str(status),
    )


def complete_handshake(
    socket: ClientConnection, address: GatewayAddress, device: DeviceKey, deadline: float
) -> Hello:
    """Answer the challenge, send ``connect`` and read the hello. ``deadline``: as for `open_socket`.

    Raises the `GatewayError` that says why the gateway refused us, or that the hello grants too little.
    """
    context = CallContext(address.url, "connect")
    frames = _HandshakeFrames(socket, address, deadline)
    try:
        challenge = frames.next("challenge")
        while not (isinstance(challenge, Event) and challenge.name == "connect.challenge"):
            challenge = frames.next("challenge")
        params = connect_params(device, address.token, *_read_challenge(challenge, address.url))
        socket.send(encode_request(_CONNECT_ID, "connect", params), text=True)
        answer = frames.next("hello")
        while not (isinstance(answer, Response) and answer.id == _CONNECT_ID):
            answer = frames.next("hello")
    except ConnectionClosed as closed:
        frame = closed.rcvd
        if frame is None and closed.sent is not None and closed.sent.code in _UNREADABLE:
            raise _not_a_gateway(address) from None
        raise from_close(context, frame.code if frame else None, frame.reason if frame else "") from None
    if answer.error is not None:
        raise _refusal(context, answer.error, device)
    if answer.payload is None:
        raise BadAnswer(
            f"{context.gateway} did not answer connect as the protocol requires", method="connect"
        )
    hello = Hello.parse(answer.payload, address.url)
    if hello.scopes is not None and ADMIN_SCOPE not in hello.scopes:
        details = {"scopes": sorted(hello.scopes)}
        raise without_scope(ADMIN_SCOPE, context.gateway, method="connect", details=details)
    return hello


class _HandshakeFrames:
    """Frames that arrive during the handshake.

    Frames of other types are skipped. If an unreadable frame is followed by no valid one, there is no
    gateway.
    """

    def __init__(self, socket: ClientConnection, address: GatewayAddress, deadline: float) -> None:
        self._socket = socket
        self._address = address
        self._deadline = deadline
        self._unreadable_seen = False

    def next(self, awaited: str) -> Response | Event | None:
        """The next frame; None for one to skip."""
        left_s = self._deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            message = decode(self._socket.recv(timeout=left_s))
        except TimeoutError:
            if self._unreadable_seen:
                raise _not_a_gateway(self._address) from None
            raise GatewayUnreachable(
                f"the gateway at {self._address.url} took the connection but sent no {awaited} in time: it"
                " may be starting or overloaded, or something else listens there; look at its log",
                method="connect",
            ) from None
        if isinstance(message, Unreadable):
            self._unreadable_seen = True
            self._deadline = min(self._deadline, time.monotonic() + _GRACE_S)
            return None
        return message


def _not_a_gateway(address: GatewayAddress) -> PermanentGatewayError:
    return PermanentGatewayError(
        f"what answers at {address.url} opens a WebSocket, but does not speak as an OpenClaw gateway does:"
        " check host, port and path in gateways.url",
        method="connect",
    )


def _read_challenge(challenge: Event, url: str) -> tuple[str, int | None]:
    nonce, sent_at = challenge.payload.get("nonce"), challenge.payload.get("ts")
    if not isinstance(nonce, str) or not nonce:
        raise PermanentGatewayError(
            f"what answers at {url} begins as a gateway does, but its challenge has no nonce: check that"
            " gateways.url is an OpenClaw gateway's",
            method="connect",
        )
    return nonce, sent_at if isinstance(sent_at, int) and sent_at is not True else None


def _refusal(context: CallContext, error: Mapping[str, Any], device: DeviceKey) -> GatewayError:
    refusal = from_response(context, error)
    if isinstance(refusal, PairingRequired) and refusal.device_id is None:
        # Older releases do not say which device they mean.
        details = {**refusal.details, "deviceId": device.device_id}
        return from_response(context, {**error, "details": details})
    return refusal
