"""Serves one client's connection: the challenge, ``connect``, then the client's requests (gateways.md 1)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.lab.simulator.connect_handshake import Challenge, Grant, HandshakeRefusal, grant_for
from worker.lab.simulator.fake_replies import fake_reply
from worker.lab.simulator.fault_schedule import FaultSchedule
from worker.lab.simulator.faults import GarbageChallenge
from worker.lab.simulator.framing import FrameWriter, request_in
from worker.lab.simulator.gateway import Gateway
from worker.lab.simulator.hello import hello
from worker.lab.simulator.journal import Call, Journal, names_in
from worker.lab.simulator.pairing import Pairing
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release
from worker.lab.simulator.request_handling import GatewayControls, RequestHandler
from worker.lab.simulator.timings import Timings

_HANDSHAKE_S = 15.0


@dataclass(frozen=True, slots=True)
class Boot:
    """The gateway from one start to its next restart. ``ready_at``: on the monotonic clock, in seconds."""

    number: int
    id: str
    ready_at: float
    gateway: Gateway


@dataclass(frozen=True, slots=True)
class SharedState:
    """What all connections of a simulator share."""

    release: Release
    state_dir: Path
    token: str
    timings: Timings
    journal: Journal
    faults: FaultSchedule
    pairing: Pairing
    controls: GatewayControls

    def __repr__(self) -> str:
        return f"<SharedState of a simulated {self.release.name}>"


class Connection:
    """Serves one client over ``writer`` while the connection lasts."""

    def __init__(self, shared: SharedState, boot: Boot, writer: FrameWriter) -> None:
        self._shared = shared
        self._boot = boot
        self._writer = writer
        self._name = str(uuid.uuid4())
        self._grant: Grant | None = None

    async def open(self) -> bool:
        """Challenge the client and read its ``connect``; return whether it was accepted. Closes a refused
        connection."""
        challenge = Challenge(str(uuid.uuid4()), int(time.time() * 1000))
        await self._challenge(challenge)
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                frame = request_in(await self._writer.connection.recv())
        except TimeoutError:
            frame = None
        if frame is None:
            await self._writer.close(1000)
            return False
        if frame.get("type") != "req" or not isinstance(frame.get("id"), str):
            await self._writer.close(1008, "invalid request frame")
            return False
        return await self._connect(frame, challenge)

    async def answer_all(self) -> None:
        """Answer requests as they come, concurrently, until the connection ends."""
        calls: set[asyncio.Task[None]] = set()
        try:
            async for message in self._writer.connection:
                frame = request_in(message)
                if frame is not None and frame.get("type") == "req":
                    task = asyncio.create_task(self._answer_one(frame))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
        finally:
            for task in calls:
                task.cancel()

    async def _challenge(self, challenge: Challenge) -> None:
        scheduled = self._shared.faults.struck("challenge")
        if scheduled is None:
            payload = {"nonce": challenge.nonce, "ts": challenge.ts}
            await self._writer.send({"type": "event", "event": "connect.challenge", "payload": payload})
        elif isinstance(scheduled.fault.kind, GarbageChallenge):
            await self._writer.send_text(scheduled.fault.kind.text)

    async def _connect(self, frame: JSON, challenge: Challenge) -> bool:
        async def run() -> JSON:
            self._grant = self._accept_connect(frame, challenge)
            return hello(
                self._shared.release,
                self._grant,
                connection=self._name,
                boot_id=self._boot.id,
                state_dir=self._shared.state_dir,
                tick_s=self._shared.timings.tick_s,
                session_scope=self._boot.gateway.session_settings().get("scope", "per-sender"),
            )

        outcome = await self._handle("connect", frame["id"], {}, run, run)
        if isinstance(outcome, HandshakeRefusal):
            await self._writer.close(outcome.close_code, outcome.close_reason)
            return False
        return self._grant is not None

    def _accept_connect(self, frame: JSON, challenge: Challenge) -> Grant:
        if frame.get("method") != "connect":
            raise HandshakeRefusal("invalid handshake: first request must be connect")
        if time.monotonic() < self._boot.ready_at:
            refusal = HandshakeRefusal(
                "gateway starting; retry shortly",
                code="UNAVAILABLE",
                details={"reason": "startup-sidecars"},
                close_code=1013,
            )
            refusal.retryable, refusal.retry_after_ms = True, 500
            raise refusal
        request = self._writer.connection.request
        assert request is not None
        grant = grant_for(
            frame.get("params") or {},
            release=self._shared.release,
            token=self._shared.token,
            challenge=challenge,
            now_ms=int(time.time() * 1000),
            origin=request.headers.get("Origin"),
        )
        return self._shared.pairing.settle(grant)

    async def _answer_one(self, frame: JSON) -> None:
        grant, gateway = self._grant, self._boot.gateway
        assert grant is not None
        method, params = str(frame.get("method")), frame.get("params") or {}
        caller = grant.device_id or self._name
        if self._shared.timings.latency_s:
            await asyncio.sleep(self._shared.timings.latency_s)
        await self._handle(
            method,
            str(frame.get("id")),
            names_in(params),
            lambda: gateway.call(method, params, grant, caller),
            lambda: fake_reply(gateway, method, params, grant, caller),
        )

    async def _handle(
        self,
        method: str,
        request_id: str,
        names: dict[str, str],
        run: Callable[[], Awaitable[JSON]],
        made_up: Callable[[], Awaitable[JSON]],
    ) -> Any:
        def note(refusal: Refusal | None, fault: str | None) -> None:
            code, message = (refusal.code, refusal.message) if refusal is not None else (None, None)
            ok = refusal is None
            call = Call(method, time.time(), self._name, self._boot.number, names, ok, code, message, fault)
            self._shared.journal.record(call)

        handler = RequestHandler(method, request_id, self._writer, run, made_up, note, self._shared.controls)
        return await handler.handle(self._shared.faults.struck("request", method, names))
