"""Long-lived gateway clients, one per process and gateway, which reconnect when needed (decisions.md D4)."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from worker.gateway.address import GatewayAddress
from worker.gateway.answers import Answer
from worker.gateway.connection import DEFAULT_DEADLINE_S, MAX_IN_FLIGHT, Call, GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.errors import GatewayError, GatewaySilent, GatewayUnreachable
from worker.gateway.idle_timeout import idle_timeout_s, note_answer, wait_within_limits, within_budget
from worker.gateway.protocol import Hello
from worker.masking import remember

__all__ = ["Call", "ClientPool", "GatewayClient"]

OPEN_DEADLINE_S = 15.0
"""Limit on opening a connection, in seconds, whatever the call's own deadline."""

_T = TypeVar("_T")


class _Opening:
    """One attempt to open a connection, for which any number of threads may wait."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.connection: GatewayConnection | None = None
        self.error: GatewayError | None = None


class GatewayClient:
    """Calls one gateway over its live connection, which is opened when needed. Thread-safe."""

    def __init__(self, address: GatewayAddress, device: DeviceKey) -> None:
        self.address = address
        self._device = device
        self._state = threading.Lock()
        self._connection: GatewayConnection | None = None
        self._opening: _Opening | None = None
        self._oversized = False
        self._generation = 0
        self._users = 0
        self._closed = False

    @property
    def generation(self) -> int:
        """The number of connections opened so far.

        When it changes, the previous connection is gone, and so are the calls that were in flight on it.
        """
        return self._generation

    @property
    def users(self) -> int:
        """The number of threads that are in a call now or wait for a connection to make one."""
        return self._users

    @property
    def idle(self) -> bool:
        """Whether there are no `users`."""
        return self._users == 0

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        """Like `GatewayConnection.call`; ``deadline_s`` includes opening a connection if needed."""

        def work(connection: GatewayConnection, left_s: float) -> dict[str, Any]:
            return connection.call(method, params, deadline_s=left_s, send_by=send_by)

        return self._with_connection(work, deadline_s)

    def query(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
    ) -> Answer:
        """Like `call`, but returns an `Answer`, which is read by name and type."""
        return self.answer(method, self.call(method, params, deadline_s=deadline_s))

    def answer(self, method: str, payload: Mapping[str, Any]) -> Answer:
        """The ``payload`` with which the gateway answered ``method``, to be read by name and type."""
        return Answer(payload, f"the gateway at {self.address.url}", method)

    def call_many(
        self, calls: Sequence[Call], *, deadline_s: float = DEFAULT_DEADLINE_S
    ) -> list[dict[str, Any] | GatewayError]:
        """Like `GatewayConnection.call_many`. Raises if there is no connection, and has sent nothing then."""

        def work(connection: GatewayConnection, left_s: float) -> list[dict[str, Any] | GatewayError]:
            outcomes = connection.call_many(calls, deadline_s=left_s)
            for outcome in outcomes:
                if isinstance(outcome, GatewayError):
                    outcome.address = self.address
            return outcomes

        return self._with_connection(work, deadline_s)

    def hello(self, *, deadline_s: float = DEFAULT_DEADLINE_S) -> Hello:
        """The hello of the current connection, which is opened now if there is none."""
        hello = self.connection(deadline_s=within_budget(deadline_s)).hello
        note_answer()
        return hello

    def connection(self, *, deadline_s: float = DEFAULT_DEADLINE_S) -> GatewayConnection:
        """The live connection, opened now if there is none.

        Threads that need a connection at the same time share one attempt and its failure, so that a wrong
        token is sent once and not by each thread. Raises what `GatewayConnection.open` does, or
        `GatewaySilent` if another thread's attempt takes too long.
        """
        deadline = time.monotonic() + deadline_s
        with self._state:
            if self._closed:
                raise GatewayUnreachable(
                    f"the client of the gateway at {self.address.url} is closed: this worker is stopping"
                )
            if self._connection is not None:
                closed = self._connection.closed
                if closed is None:
                    return self._connection
                self._oversized = closed.oversized
            is_opener = self._opening is None
            opening = self._opening = self._opening or _Opening()
        if is_opener:
            self._open(
                opening, within_budget(min(deadline_s, OPEN_DEADLINE_S, idle_timeout_s() or OPEN_DEADLINE_S))
            )
        elif not wait_within_limits(opening.over.wait, deadline):
            raise GatewaySilent(
                f"no connection to the gateway at {self.address.url} in time: check that it runs, and the"
                " load of its machine",
                method="connect",
                sent=False,
            )
        if opening.connection is None:
            assert opening.error is not None
            # Threads must not share one exception: each raise adds to its traceback.
            error = opening.error if is_opener else copy.copy(opening.error)
            error.address = self.address
            raise error
        return opening.connection

    def disconnect(self) -> None:
        """Close the current connection; the next use opens another."""
        with self._state:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the client for good; later use raises `GatewayUnreachable`."""
        with self._state:
            self._closed = True
        self.disconnect()

    def _open(self, opening: _Opening, deadline_s: float) -> None:
        connection: GatewayConnection | None = None
        try:
            connection = GatewayConnection.open(
                self.address,
                self._device,
                deadline_s=deadline_s,
                # With one call in flight, another answer of that size fails that call alone.
                most_in_flight=1 if self._oversized else MAX_IN_FLIGHT,
            )
        except GatewayError as error:
            opening.error = error
        except BaseException:
            opening.error = GatewayUnreachable(f"opening a connection to {self.address.url} was interrupted")
            raise
        finally:
            with self._state:
                self._opening = None
                unwanted = self._closed
                if connection is not None and not unwanted:
                    self._connection, opening.connection = connection, connection
                    self._generation += 1
            if connection is not None and unwanted:
                connection.close()
                opening.error = GatewayUnreachable(
                    f"the client of the gateway at {self.address.url} was closed meanwhile"
                )
            opening.over.set()

    def _drop(self, connection: GatewayConnection) -> None:
        with self._state:
            if self._connection is connection:
                self._connection = None

    def _with_connection(self, work: Callable[[GatewayConnection, float], _T], deadline_s: float) -> _T:
        deadline = time.monotonic() + within_budget(deadline_s)
        with self._state:
            self._users += 1
        try:
            connection = self.connection(deadline_s=deadline - time.monotonic())
            try:
                outcome = work(connection, deadline - time.monotonic())
                if not isinstance(outcome, list) or any(isinstance(one, dict) for one in outcome):
                    note_answer()
                return outcome
            except GatewayUnreachable:
                # The connection died before it was used. The call was not sent, so one retry is safe.
                self._drop(connection)
                connection = self.connection(deadline_s=max(0.0, deadline - time.monotonic()))
                return work(connection, deadline - time.monotonic())
        except GatewayError as error:
            error.address = self.address
            raise
        finally:
            with self._state:
                self._users -= 1


class ClientPool:
    """One `GatewayClient` for each gateway that the process talks to.

    ``max_clients``: beyond this number, the least recently used idle clients are disconnected and dropped.
    """

    def __init__(self, device: DeviceKey, *, max_clients: int = 64) -> None:
        self._device = device
        self._max_clients = max_clients
        self._lock = threading.Lock()
        self._clients: OrderedDict[tuple[str, str | None, bool], GatewayClient] = OrderedDict()
        self._closed = False

    def client(self, address: GatewayAddress) -> GatewayClient:
        """The client for ``address``; a different token or TLS setting gets a different client.

        Call this again for each piece of work instead of keeping the client, which may be dropped when idle.
        After `close_all`, the returned client is closed.
        """
        remember(address.token)  # a gateway may quote it in an error
        key = (address.url, address.token_fingerprint, address.allow_insecure_tls)
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = GatewayClient(address, self._device)
            self._clients.move_to_end(key)
            surplus = self._take_surplus()
            closed = self._closed
        if closed:
            client.close()
        for old in surplus:
            old.disconnect()
        return client

    def close_all(self) -> None:
        """Close every client for good, including those requested later.

        Calls in flight raise `ConnectionLost`.
        """
        with self._lock:
            self._closed = True
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    def __len__(self) -> int:
        return len(self._clients)

    def _take_surplus(self) -> list[GatewayClient]:
        # The last one was requested just now, so it is never surplus.
        idle = [key for key, client in list(self._clients.items())[:-1] if client.idle]
        return [self._clients.pop(key) for key in idle[: max(0, len(self._clients) - self._max_clients)]]
