"""A bare client of the conformance suite's own, so that it proves the gateway and not our client."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

JSON = dict[str, Any]

SCOPES = ("operator.read", "operator.write", "operator.admin", "operator.approvals", "operator.pairing")
ANSWER_S = 60.0
CLIENT = {"id": "gateway-client", "mode": "backend", "version": "1.0", "platform": "linux"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One response frame."""

    ok: bool
    payload: JSON
    error: JSON

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Answer:
        return cls(frame["ok"], frame.get("payload") or {}, frame.get("error") or {})

    @property
    def message(self) -> str:
        return str(self.error.get("message", ""))


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended. ``at`` is on the monotonic clock."""

    code: int | None
    reason: str
    at: float = field(default_factory=time.monotonic)


class Device:
    """An Ed25519 device key, and the ``device`` block it signs over a challenge."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = hashlib.sha256(self._public).hexdigest()

    def block(self, challenge: JSON, client: JSON, scopes: Iterable[str], token: str) -> JSON:
        fields = [self.id, client["id"], client["mode"], "operator", ",".join(scopes), str(challenge["ts"])]
        payload = "|".join(["v2", *fields, token, challenge["nonce"]])
        return {
            "id": self.id,
            "publicKey": _base64(self._public),
            "signature": _base64(self._key.sign(payload.encode())),
            "signedAt": challenge["ts"],
            "nonce": challenge["nonce"],
        }


class Peer:
    """One socket. It knows no policy: frames out, frames in, events kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._sent = 0
        self._answers: dict[str, Answer] = {}
        self.events: list[JSON] = []
        self.challenge: JSON = json.loads(socket.recv(ANSWER_S))
        self.hello = Answer(False, {}, {})

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> str:
        """Send a request and return its id."""
        self._sent += 1
        request_id = f"r{self._sent}"
        self.send_text(
            json.dumps({"type": "req", "id": request_id, "method": method, "params": dict(params or {})})
        )
        return request_id

    def send_text(self, text: str) -> None:
        self._socket.send(text)

    def answer(self, request_id: str) -> Answer:
        """Wait for the answer to a request sent before."""
        while request_id not in self._answers:
            self._read(ANSWER_S)
        return self._answers.pop(request_id)

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        return self.answer(self.send(method, params))

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> JSON:
        """The payload of a call that must succeed."""
        answer = self.call(method, params)
        assert answer.ok, f"{method}: {answer.error}"
        return answer.payload

    def call_at_once(self, requests: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Answer]:
        """Send all requests before reading any answer."""
        sent = [self.send(method, params) for method, params in requests]
        return [self.answer(request_id) for request_id in sent]

    def closed(self, within_s: float) -> Close | None:
        """How the connection ends within that time; None while it stays open."""
        until = time.monotonic() + within_s
        while (left := until - time.monotonic()) > 0:
            try:
                self._read(left)
            except TimeoutError:
                return None
            except ConnectionClosed as closed:
                frame = closed.rcvd
                return Close(frame.code if frame else None, frame.reason if frame else "")
        return None

    def event(self, name: str, within_s: float, **expected: object) -> JSON:
        """The payload of the first event of that name whose payload holds ``expected``."""
        until = time.monotonic() + within_s
        while True:
            for event in self.events:
                if event["event"] == name and expected.items() <= event["payload"].items():
                    payload: JSON = event["payload"]
                    return payload
            self._read(until - time.monotonic())

    def _read(self, timeout_s: float) -> None:
        frame = json.loads(self._socket.recv(max(timeout_s, 0)))
        if frame["type"] == "res":
            self._answers[frame["id"]] = Answer.of(frame)
        else:
            self.events.append(frame)


@contextmanager
def dial(url: str, *, origin: str | None = None) -> Iterator[Peer]:
    """A socket on which nothing but the challenge has happened."""
    arguments: JSON = {"origin": origin} if origin else {}
    with connect(url, max_size=2**26, open_timeout=20, close_timeout=2, proxy=None, **arguments) as socket:
        yield Peer(socket)


@contextmanager
def meet(
    url: str,
    token: str | None,
    *,
    device: Device | None = None,
    client: Mapping[str, str] | None = None,
    scopes: Iterable[str] | None = SCOPES,
    protocol: tuple[int, int] = (3, 4),
    origin: str | None = None,
    extra: Mapping[str, Any] | None = None,
    forged: Mapping[str, Any] | None = None,
) -> Iterator[Peer]:
    """A peer that has sent ``connect``; ``hello`` holds the answer, refused or not.

    ``forged`` replaces properties of the device block after it was signed.
    """
    with dial(url, origin=origin) as peer:
        shown = {**CLIENT, **(client or {})}
        params: JSON = {"minProtocol": protocol[0], "maxProtocol": protocol[1], "client": shown}
        if scopes is not None:
            params |= {"role": "operator", "scopes": list(scopes)}
        if token is not None:
            params["auth"] = {"token": token}
        if device is not None:
            block = device.block(peer.challenge["payload"], shown, scopes or (), token or "")
            params["device"] = block | dict(forged or {})
        peer.hello = peer.call("connect", params | dict(extra or {}))
        yield peer


@contextmanager
def meet_when_up(url: str, token: str, *, within_s: float, device: Device | None = None) -> Iterator[Peer]:
    """A connected peer of a gateway that may be restarting; TimeoutError when it stays down."""
    until = time.monotonic() + within_s
    with ExitStack() as stack:
        while (peer := _try_to_meet(stack, url, token, device)) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{url} did not come up within {within_s} s")
            time.sleep(0.02)
        yield peer


def _try_to_meet(stack: ExitStack, url: str, token: str, device: Device | None) -> Peer | None:
    with ExitStack() as attempt:
        try:
            peer = attempt.enter_context(meet(url, token, device=device))
        except (OSError, InvalidHandshake, ConnectionClosed):
            return None
        if not peer.hello.ok:
            return None
        stack.push(attempt.pop_all())
        return peer


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
