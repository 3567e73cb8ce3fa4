"""The timer of each worker process, which publishes the rows that are due (decisions.md D8).

It also publishes again what the broker lost, which is why its timer depends neither on the broker nor on
beat. Any number of dispatchers may run at once, because SKIP LOCKED keeps them from publishing the same row.
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
from worker.database_gate import PROBE_EVERY_S, DatabaseGate, gate
from worker.jobs.outbox import BATCH, PUBLISH_ERRORS, publish_due
from worker.runtime.services import Services
from worker.worker_row import WorkerRow

log = logging.getLogger(__name__)

_CONSUMER_SILENCE_S = 20.0
"""Seconds without a sign of life from the consumer after which the dispatcher stops giving its own; the
consumer gives one every two seconds (worker/consumer_liveness.py)."""


class Dispatcher:
    """A thread that publishes due rows at regular ticks until it is stopped.

    Called at each tick: ``rescue``, to fetch messages from a queue that no worker reads, and ``deliver``, to
    begin to call the webhooks of jobs that have ended. What fails in one tick is tried again in the next.
    While the database gate is closed, the thread publishes nothing and probes once a second whether the
    database accepts writes again.
    """

    def __init__(
        self,
        services: Services,
        gate: DatabaseGate = gate,
        rescue: Callable[[], object] = lambda: None,
        deliver: Callable[[], object] = lambda: None,
    ) -> None:
        self._services = services
        self._rescue = rescue
        self._deliver = deliver
        self._gate = gate
        self._row = WorkerRow(services.engine, gate)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._trouble: str | None = None
        self._consumed_at = time.monotonic()

    def note_consuming(self) -> None:
        """Record that the worker's consumer is connected and running.

        Without such a record for 20 seconds, the health file is no longer touched.
        """
        self._consumed_at = time.monotonic()

    def check_database(self) -> None:
        """Close the gate unless the database accepts writes; called before the worker takes messages."""
        if self._gate.closed_by is None:
            try:
                self._row.probe()
            except DATABASE_AWAY as error:
                self._gate.close(error, by_probe=True)

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
                self._row.delete()

    def tick(self) -> None:
        """Publish the rows that are due, in batches, until a batch is not full; then deliver and
        rescue. Raises nothing."""
        try:
            if not self._gate.try_to_open(self._row.probe):
                return
            self._row.refresh()
            while publish_due(self._services.engine, self._services.send) >= BATCH:
                pass
            self._deliver()
            self._rescue()
        except DATABASE_AWAY as error:
            self._gate.close(error)
        except (SQLAlchemyError, *PUBLISH_ERRORS) as error:
            self._note(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        except Exception as error:
            failure = f"it stumbled: {type(error).__name__}"
            if self._trouble != failure:  # once, and not at every tick
                log.exception("the dispatcher stumbled, and tries again at each tick")
            self._trouble = failure
        else:
            self._note(None)

    def _run(self) -> None:
        tick_s = self._services.settings.dispatch_interval_s
        while not self._stopped.wait(tick_s if self._gate.closed_by is None else min(tick_s, PROBE_EVERY_S)):
            self.tick()
            if time.monotonic() - self._consumed_at < _CONSUMER_SILENCE_S:
                health.touch(self._services.settings.health_file, self._database_pause())

    def _database_pause(self) -> str:
        closed_by = self._gate.closed_by
        return f"No work is taken until the database serves us: {closed_by}" if closed_by is not None else ""

    def _note(self, trouble: str | None) -> None:
        if trouble is not None and self._trouble is None:
            log.warning("nothing can be published now, trying again: %s", trouble)
        elif trouble is None and self._trouble is not None:
            log.info("publishing again")
        self._trouble = trouble
