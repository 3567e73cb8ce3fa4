"""Writes frames to a socket: answers to one client, events to all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from worker.lab.simulator.refusal import JSON, Refusal


class SocketLogger(logging.Logger):
    """Logs what happens to sockets, but never a frame: frames hold tokens and agents' files."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)


def socket_logger() -> logging.Logger:
    logger = SocketLogger("worker.lab.simulator.socket")
    logger.parent = logging.getLogger("worker.lab.simulator")
    return logger


class FrameWriter:
    """Sends frames on one connection; nothing more once it is `silent`."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.silent = False
        self._answered = 0
        self._answering = asyncio.Condition()

    async def send(self, frame: JSON) -> None:
        try:
            text = json.dumps(frame, ensure_ascii=False)
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: as JSON.stringify has it
            text = json.dumps(frame)
        await self.send_text(text)

    async def send_text(self, text: str) -> None:
        if self.silent:
            return
        with contextlib.suppress(ConnectionClosed):
            await self.connection.send(text)

    async def answer(self, request_id: str, outcome: JSON | Refusal) -> None:
        """Send the response to a request."""
        await self.send(response(request_id, outcome))
        await self.has_answered()

    async def has_answered(self) -> None:
        """Count an answer, for answers that must wait for others."""
        async with self._answering:
            self._answered += 1
            self._answering.notify_all()

    async def after_answers(self, count: int) -> None:
        """Wait until ``count`` more answers have been sent."""
        async with self._answering:
            wanted = self._answered + count
            await self._answering.wait_for(lambda: self._answered >= wanted)

    def drop(self) -> None:
        """End the connection without a close frame."""
        self.connection.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        await self.connection.close(code, reason)


def response(request_id: str, outcome: JSON | Refusal) -> JSON:
    """The frame that answers a request."""
    frame: JSON = {"type": "res", "id": request_id, "ok": not isinstance(outcome, Refusal)}
    if not isinstance(outcome, Refusal):
        return frame | {"payload": outcome}
    if outcome.payload is not None:
        frame["payload"] = outcome.payload
    return frame | {"error": outcome.as_error()}


def request_in(message: str | bytes) -> dict[str, Any] | None:
    """The object that a client sent; None if it sent something else."""
    try:
        frame = json.loads(message)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None
