"""Runs real threads one at a time, in an order that is drawn: who holds the baton goes on to its next
transaction or gateway call, and hands it back there. While a call waits for its answer, others have it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection, Engine

from worker.gateway.address import GatewayAddress
from worker.gateway.answers import Answer
from worker.gateway.client import Call, ClientPool, GatewayClient
from worker.gateway.connection import GatewayConnection
from worker.gateway.errors import GatewayError
from worker.gateway.protocol import Hello

WRITES = ("config.patch", "agents.delete")
_PATIENCE_S = 60.0


class Killed(BaseException):
    """The process that the thread stands for is gone: nothing more comes from it."""


class Actor:
    """One thread of work. ``at``: what it does next, once it has the baton; ``error``: what it ended with.
    ``jumps``: how often time had jumped when its last transaction was over."""

    def __init__(self, name: str, work: Callable[[Actor], None], times: Times) -> None:
        self.name = name
        self.at = "begin"
        self.done = False
        self.killed = False
        self.error: BaseException | None = None
        self.writing = False
        self.jumps = 0
        self.times = times
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"{self.name}: {self.at}"

    def step(self) -> None:
        """Let it go on to its next point, or to its end."""
        self._go.release()
        if not self._back.acquire(timeout=_PATIENCE_S):
            raise TimeoutError(f"{self} came to no end")

    def pause(self, at: str) -> None:
        """Hand the baton back; returns with it. Raises Killed where there is nothing to return to. A thread
        that the actor started (the renewal of a lease) needs none."""
        if threading.current_thread() is not self._thread:
            return
        if not self.killed:
            self.at = at
            self._back.release()
            self._go.acquire()
        if self.killed:
            raise Killed

    def note_trespass(self) -> None:
        """Note where this thread is about to write, and is not the one that may."""
        holder = self.times.holder() or "nobody"
        if not holder.endswith(f":{self._thread.ident}"):
            self.times.trespasses.append(f"{self}, without a lease: {holder} has it")

    def _run(self, work: Callable[[Actor], None]) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                work(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.done = True
            self._back.release()


class Times:
    """``jumps``: how often all clocks jumped ahead by more than any lease; ``holder``: says which thread may
    write the gateway's roster now, by the end of its name in the lease; ``trespasses``: who did without."""

    def __init__(self, holder: Callable[[], str | None]) -> None:
        self.jumps = 0
        self.holder = holder
        self.trespasses: list[str] = []


class PacedEngine:
    """The engine of one actor, which waits for the baton before each transaction."""

    def __init__(self, engine: Engine, actor: Actor) -> None:
        self._engine = engine
        self._actor = actor

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """As Engine.begin."""
        self._actor.pause("a transaction")
        with self._engine.begin() as connection:
            yield connection
        self._actor.jumps = self._actor.times.jumps

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """As Engine.connect."""
        self._actor.pause("a look into the database")
        with self._engine.connect() as connection:
            yield connection

    def execution_options(self, **options: Any) -> PacedEngine:
        """As Engine.execution_options: for statements that are transactions of their own."""
        return PacedEngine(self._engine.execution_options(**options), self._actor)


class PacedClient:
    """A gateway client of one actor: it waits for the baton before each call, and again for the answer."""

    def __init__(self, client: GatewayClient, actor: Actor) -> None:
        self._client = client
        self._actor = actor

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = 10.0,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        """As GatewayClient.call. After a jump of the clocks, it is too late for what had to leave by then."""
        actor = self._actor
        actor.pause(method)
        if send_by is not None and actor.jumps != actor.times.jumps:
            send_by = time.monotonic()
        writing = method in WRITES and (send_by is None or time.monotonic() < send_by)
        if writing and send_by is not None:
            actor.note_trespass()
        outcome: list[dict[str, Any] | BaseException] = []

        def work() -> None:
            try:
                outcome.append(self._client.call(method, params, deadline_s=deadline_s, send_by=send_by))
            except BaseException as error:
                outcome.append(error)

        actor.writing = writing
        call = threading.Thread(target=work, daemon=True)
        call.start()
        try:
            actor.pause(f"the answer to {method}")
        finally:
            call.join(_PATIENCE_S)
            actor.writing = False
        answer = outcome[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def query(
        self, method: str, params: Mapping[str, Any] | None = None, *, deadline_s: float = 10.0
    ) -> Answer:
        """As GatewayClient.query."""
        return self._client.answer(method, self.call(method, params, deadline_s=deadline_s))

    def answer(self, method: str, payload: Mapping[str, Any]) -> Answer:
        """As GatewayClient.answer."""
        return self._client.answer(method, payload)

    @property
    def address(self) -> GatewayAddress:
        """As GatewayClient.address."""
        return self._client.address

    def call_many(self, calls: Sequence[Call], **options: Any) -> list[dict[str, Any] | GatewayError]:
        """As GatewayClient.call_many."""
        return self._client.call_many(calls, **options)

    def connection(self, **options: Any) -> GatewayConnection:
        """As GatewayClient.connection."""
        return self._client.connection(**options)

    def hello(self, **options: Any) -> Hello:
        """As GatewayClient.hello."""
        return self._client.hello(**options)


class PacedClients:
    """The client pool of one actor."""

    def __init__(self, clients: ClientPool, actor: Actor) -> None:
        self._clients = clients
        self._actor = actor

    def client(self, address: GatewayAddress) -> GatewayClient:
        """As ClientPool.client."""
        return cast(GatewayClient, PacedClient(self._clients.client(address), self._actor))
