"""Points at which one thing fails: each call to the gateway, each SQL statement, commit and message."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from redis.exceptions import ConnectionError
from sqlalchemy import Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection

from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Drop, Restart

Kind = Literal[
    "call lost",
    "answer lost",
    "restart before call",
    "restart after call",
    "statement cut",
    "commit cut",
    "dead at statement",
    "dead at commit",
    "message lost",
    "dead at message",
]
KINDS: Mapping[Kind, Literal["calls", "statements", "commits", "messages"]] = {
    "call lost": "calls",
    "answer lost": "calls",
    "restart before call": "calls",
    "restart after call": "calls",
    "statement cut": "statements",
    "commit cut": "commits",
    "dead at statement": "statements",
    "dead at commit": "commits",
    "message lost": "messages",
    "dead at message": "messages",
}
"""What happens, and of what it is counted: the connection ends before or after a call is carried out, the
gateway restarts there, the database ends the session before a statement or a commit, the worker dies there,
the broker refuses a message, or the worker dies once it is sent."""
DOWN_S = 0.05
"""Seconds for which a gateway that restarts refuses connections."""
AT_CALLS: Mapping[Kind, Drop | Restart] = {
    "call lost": Drop(carried_out=False),
    "answer lost": Drop(carried_out=True),
    "restart before call": Restart(carried_out=False, down_s=DOWN_S),
    "restart after call": Restart(carried_out=True, down_s=DOWN_S),
}


class Dead(BaseException):
    """The worker was killed: nothing of ours catches this."""


@dataclass(frozen=True)
class Point:
    """The ``nth`` time, counted from 1, at which that kind of failure can happen."""

    kind: Kind
    nth: int

    def __str__(self) -> str:
        return f"{self.kind} {self.nth}"


@dataclass
class Counted:
    """How often each thing happened."""

    calls: int = 0
    statements: int = 0
    commits: int = 0
    messages: int = 0

    def points(self) -> list[Point]:
        """All points of a run that did so much."""
        return [Point(kind, n) for kind, what in KINDS.items() for n in range(1, getattr(self, what) + 1)]


@dataclass
class Failing:
    """Counts what happens in this thread, and has the point fail when it comes."""

    engine: Engine
    simulator: Simulator
    point: Point | None = None
    counted: Counted = field(default_factory=Counted)
    happened: bool = False
    dead: bool = False

    def _comes(self, what: str) -> Kind | None:
        """Count it; return what is to happen now, if anything."""
        setattr(self.counted, what, getattr(self.counted, what) + 1)
        point = self.point
        if point is None or self.happened or KINDS[point.kind] != what:
            return None
        if getattr(self.counted, what) != point.nth or point.kind == "dead at message":
            return None
        self.happened = True
        return point.kind

    def before_message(self) -> None:
        """The broker is about to get a message. Raises ConnectionError if it does not take it."""
        if self.dead:
            raise Dead
        if self._comes("messages") == "message lost":
            raise ConnectionError("the broker is away")

    def after_message(self) -> None:
        """The broker has got a message."""
        if self.point == Point("dead at message", self.counted.messages) and not self.dead:
            self._die()

    def revive(self) -> None:
        """Another worker goes on."""
        self.dead = False

    def _die(self) -> None:
        self.dead = self.happened = True
        raise Dead

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Have it count, and fail, within the block."""
        own, engine, simulator = threading.get_ident(), self.engine, self.simulator

        def on_statement(connection: Any, *_: Any) -> None:
            if threading.get_ident() == own:
                self._at_database("statements", connection.connection.dbapi_connection)

        def on_commit(connection: Any) -> None:
            if threading.get_ident() == own:
                self._at_database("commits", connection.connection.dbapi_connection)

        if self.point is not None and self.point.kind in AT_CALLS:
            simulator.faults.schedule(Fault(AT_CALLS[self.point.kind], nth=self.point.nth))
        calls = len(simulator.calls)
        event.listen(engine, "before_cursor_execute", on_statement)
        event.listen(engine, "commit", on_commit)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", on_statement)
            event.remove(engine, "commit", on_commit)
            self.counted.calls = sum(call.method != "connect" for call in simulator.calls[calls:])
            if self.point is not None and self.point.kind in AT_CALLS:
                self.happened = not simulator.faults.outstanding
            simulator.faults.clear()

    def _at_database(self, what: str, session: DBAPIConnection | None) -> None:
        if self.dead:
            raise Dead  # a worker that is dead writes nothing more, not even in a finally
        kind = self._comes(what)
        if kind in ("dead at statement", "dead at commit"):
            self._die()
        if kind is not None:
            end_session(self.engine, session)


def end_session(engine: Engine, session: Any) -> None:
    """Have Postgres end the session, as its administrator would."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": session.info.backend_pid})
