"""Reports that a worker's consumer is alive; Celery's heartbeat may be off (``--without-heartbeat``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

EVERY_S = 2.0


def liveness_step(report: Callable[[], None]) -> type[bootsteps.StartStopStep]:
    """A step of Celery's consumer that calls ``report`` every two seconds.

    It is a timer on the consumer's own event loop, so it is silent while the loop is stuck and stops when the
    connection to the broker is lost.
    """

    class LivenessStep(bootsteps.StartStopStep):
        requires = (Tasks,)

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            self._timer: Any = None

        def start(self, parent: Any) -> None:
            self._timer = parent.timer.call_repeatedly(EVERY_S, report)

        def stop(self, parent: Any) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        shutdown = stop

    return LivenessStep
