"""The timer of each worker process: it publishes the rows that are due (decisions.md D8).

Rescue must depend neither on the broker whose losses it makes good, nor on beat. SKIP LOCKED makes several
dispatchers harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from worker import health
from worker.database import DATABASE_AWAY
from worker.gate import PROBE_EVERY_S, Gate, gate
from worker.jobs.outbox import BATCH, PUBLISH_ERRORS, publish_due
from worker.presence import Presence
from worker.runtime.services import Services

log = logging.getLogger(__name__)

_CONSUMER_SILENCE_S = 20.0
"""Seconds without a sign of life from the consumer after which the dispatcher stops giving its own; the
consumer gives one every two seconds (worker/pulse.py)."""


class Dispatcher:
    """A thread that ticks until it is stopped.

    ``rescue`` fetches messages from queues that no worker reads. What fails in one tick, the next one tries
    again. While the database says "not now", the thread publishes nothing and probes once a second whether
    the database accepts writes again.
    """

    def __init__(
        self, services: Services, gate: Gate = gate, rescue: Callable[[], object] = lambda: None
    ) -> None:
        self._services = services
        self._rescue = rescue
        self._gate = gate
        self._presence = Presence(services.engine, gate)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)
        self._trouble: str | None = None
        self._consumed_at = time.monotonic()

    def consuming(self) -> None:
        """Record that the worker's consumer is connected and running; without it no sign of life is given."""
        self._consumed_at = time.monotonic()

    def look(self) -> None:
        """Before the worker takes messages: shut the gate unless the database accepts writes."""
        if self._gate.because is None:
            try:
                self._presence.probe()
            except DATABASE_AWAY as error:
                self._gate.shut(error, by_probe=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current tick, for which it waits up to 5 seconds, and delete this
        process's row of `provisioner.workers`."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
            with suppress(SQLAlchemyError):
                self._presence.leave()

    def tick(self) -> None:
        """Publish the rows that are due, in batches, until a batch is not full. Raises nothing."""
        try:
            if not self._gate.try_to_open(self._presence.probe):
                return
            self._presence.sign()
            while publish_due(self._services.engine, self._services.send) >= BATCH:
                pass
            self._rescue()
        except DATABASE_AWAY as error:
            self._gate.shut(error)
        except (SQLAlchemyError, *PUBLISH_ERRORS) as error:
            self._note(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        except Exception as error:
            stumbled = f"it stumbled: {type(error).__name__}"
            if self._trouble != stumbled:  # once, and not at every tick
                log.exception("the clock stumbled, and tries again at each tick")
            self._trouble = stumbled
        else:
            self._note(None)

    def _run(self) -> None:
        tick_s = self._services.settings.dispatch_interval_s
        while not self._stopped.wait(tick_s if self._gate.because is None else min(tick_s, PROBE_EVERY_S)):
            self.tick()
            if time.monotonic() - self._consumed_at < _CONSUMER_SILENCE_S:
                health.touch(self._services.settings.health_file, self._trouble_with_the_database())

    def _trouble_with_the_database(self) -> str:
        because = self._gate.because
        return f"No work is taken until the database serves us: {because}" if because is not None else ""

    def _note(self, trouble: str | None) -> None:
        if trouble is not None and self._trouble is None:
            log.warning("nothing can be published now, trying again: %s", trouble)
        elif trouble is None and self._trouble is not None:
            log.info("publishing again")
        self._trouble = trouble
