"""Handles one request: carries it out, answers it, and applies a scheduled fault."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from worker.lab.simulator.connect_handshake import HandshakeRefusal
from worker.lab.simulator.fault_schedule import ScheduledFault
from worker.lab.simulator.faults import (
    Delay,
    Drop,
    Endless,
    FakeReply,
    Flood,
    Garble,
    Hold,
    Kind,
    Late,
    Oversized,
    Refuse,
    RefuseConnections,
    Restart,
    Silence,
    Stray,
    Twice,
    Wrong,
)
from worker.lab.simulator.framing import FrameWriter, response
from worker.lab.simulator.refusal import JSON, Refusal

logger = logging.getLogger(__name__)

Outcome = JSON | Refusal

_WRONG_PAYLOADS: dict[str, object] = {"text": "unexpected", "list": [], "number": 7, "empty": {}}


class GatewayControls(Protocol):
    """What a fault can do to the whole gateway."""

    def restart_in(self, delay_s: float, down_s: float | None) -> None: ...

    async def refuse_connections(self, seconds: float) -> None: ...


@dataclass(slots=True)
class RequestHandler:
    """Handles one request.

    ``run`` carries the request out, ``fake`` makes up its answer, and ``note`` records it. ``fault``: the
    name of the fault that was applied to it, if any.
    """

    method: str
    request_id: str
    writer: FrameWriter
    run: Callable[[], Awaitable[JSON]]
    fake: Callable[[], Awaitable[JSON]]
    note: Callable[[Refusal | None, str | None], None]
    controls: GatewayControls
    fault: str | None = None

    async def handle(self, scheduled: ScheduledFault | None) -> Outcome | None:
        """Carry out and answer the request, with the scheduled fault, if any. Returns the answer, None if
        there was none or an invalid one."""
        if scheduled is None:
            return await self._answer(await self._carry_out())
        self.fault = type(scheduled.fault.kind).__name__
        return await self._apply(scheduled.fault.kind, scheduled)

    async def _apply(self, kind: Kind, scheduled: ScheduledFault) -> Outcome | None:
        match kind:
            case Refuse():
                return await self._refuse(kind)
            case FakeReply():
                return await self._answer(await self._fake(kind))
            case Delay() | Hold():
                return await self._wait(kind, scheduled)
            case Late():
                outcome = await self._carry_out()
                await self.writer.after_answers(kind.behind)
                return await self._answer(outcome)
            case Twice() | Stray() | Flood() | Oversized() | Endless():
                return await self._answer_too_much(kind, await self._carry_out())
            case Wrong():
                await self._answer_malformed(kind.shape)
            case Garble():
                await self._carry_out()
                text = kind.frame.replace("{payload}", kind.payload).replace("{id}", self.request_id)
                await self.writer.send_text(text)
                await self.writer.has_answered()
            case RefuseConnections():
                await self.controls.refuse_connections(kind.seconds)
                return await self._answer(await self._carry_out())
            case Restart(answered=True):
                outcome = await self._answer(await self._carry_out())
                self.controls.restart_in(kind.delay_s, kind.down_s)
                return outcome
            case Drop() | Restart() | Silence():
                await self._leave_unanswered(kind)
        return None

    async def _answer_too_much(
        self, kind: Twice | Stray | Flood | Oversized | Endless, outcome: Outcome
    ) -> Outcome:
        match kind:
            case Twice():
                await self.writer.send(response(self.request_id, outcome))
            case Stray():
                for number in range(kind.answers):
                    await self.writer.send(response(f"nobody-{number}", outcome))
            case Flood():
                event = {"type": "event", "event": "chat", "payload": {"text": "x" * kind.size}}
                for _ in range(kind.events):
                    await self.writer.send(event)
            case Oversized() if not isinstance(outcome, Refusal):
                outcome = {**outcome, "padding": "x" * (kind.megabytes << 20)}
            case Endless() if not isinstance(outcome, Refusal):
                outcome = _with_more(outcome)
        return await self._answer(outcome)

    async def _leave_unanswered(self, kind: Drop | Restart | Silence) -> None:
        if kind.carried_out:
            await self._carry_out()
        else:
            self.note(Refusal("", code="FAULT"), self.fault)
        match kind:
            case Drop():
                self.writer.drop()
            case Restart():
                self.controls.restart_in(kind.delay_s, kind.down_s)
            case Silence():
                self.writer.silent = True

    async def _refuse(self, kind: Refuse) -> Outcome:
        closing = 1013 if kind.code == "UNAVAILABLE" else 1008
        refusal = (
            HandshakeRefusal(kind.message, code=kind.code, close_code=closing)
            if self.method == "connect"
            else Refusal(kind.message, code=kind.code)
        )
        refusal.details = dict(kind.details) if kind.details is not None else None
        refusal.retryable, refusal.retry_after_ms = kind.retryable, kind.retry_after_ms
        self._note(refusal)
        return await self._answer(refusal)

    async def _wait(self, kind: Delay | Hold, scheduled: ScheduledFault) -> Outcome:
        outcome = await self._carry_out() if kind.carried_out else None
        await (asyncio.sleep(kind.seconds) if isinstance(kind, Delay) else scheduled.released())
        return await self._answer(outcome or await self._carry_out())

    async def _answer_malformed(self, shape: str) -> None:
        frame: JSON = response(self.request_id, await self._carry_out())
        if shape == "not JSON":
            text = '{"type": "res", "ok": tr'
        elif shape == "frame is a list":
            text = json.dumps([frame])
        else:
            frame.pop("payload", None)
            text = json.dumps(frame if shape == "absent" else {**frame, "payload": _WRONG_PAYLOADS[shape]})
        await self.writer.send_text(text)
        await self.writer.has_answered()

    async def _fake(self, kind: FakeReply) -> Outcome:
        if kind.payload is None:
            return await self._outcome_of(self.fake)
        self._note(dict(kind.payload))
        return dict(kind.payload)

    async def _carry_out(self) -> Outcome:
        return await self._outcome_of(self.run)

    async def _outcome_of(self, act: Callable[[], Awaitable[JSON]]) -> Outcome:
        outcome: Outcome
        try:
            outcome = await act()
        except Refusal as refusal:
            outcome = refusal
        except Exception as error:
            logger.exception("simulated %s failed", self.method)
            outcome = Refusal(f"Error: {type(error).__name__}", code="UNAVAILABLE")
        self._note(outcome)
        return outcome

    async def _answer(self, outcome: Outcome) -> Outcome:
        await self.writer.answer(self.request_id, outcome)
        return outcome

    def _note(self, outcome: Outcome) -> None:
        self.note(outcome if isinstance(outcome, Refusal) else None, self.fault)


def _with_more(page: JSON) -> JSON:
    """The page of a list, of which more are said to follow; anything else as it is."""
    if "totalEntries" in page:
        return {**page, "totalEntries": page["offset"] + len(page["entries"]) + 1}
    if "hasMore" in page:
        end = page["offset"] + len(page["jobs"])
        return {**page, "total": end + 1, "hasMore": True, "nextOffset": end}
    return page
