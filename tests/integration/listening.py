"""What a session that listens to ``provisioner_jobs`` is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, text

CHANNEL = "provisioner_jobs"
_OVER = "over"


class Listener:
    """A session that listens. ``payloads`` says what was sent since the last look, as it was sent."""

    def __init__(self, engine: Engine, connection: psycopg.Connection[Any]) -> None:
        self._engine, self._connection = engine, connection

    def payloads(self) -> list[str]:
        """All that was committed until now: Postgres tells it in the order of the commits."""
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_notify(:channel, :over)"), {"channel": CHANNEL, "over": _OVER})
        heard: list[str] = []
        for notification in self._connection.notifies(timeout=60):
            if notification.payload == _OVER:
                return heard
            heard.append(notification.payload)
        raise AssertionError("the listener was told nothing for a minute")

    def batches(self) -> list[list[tuple[str, str]]]:
        """Id and status of each job that ended, a list for each notification."""
        return [[(one["id"], one["status"]) for one in json.loads(payload)] for payload in self.payloads()]


@contextmanager
def listening(engine: Engine) -> Iterator[Listener]:
    """Listen while the block runs."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield Listener(engine, connection)
