"""Renews a lease from a thread during the work under it, so that it expires only if its worker dies.

Without renewal, a slow gateway would outlast the lease and two workers would serve the same row. A worker
that was stopped meanwhile compares its lease with the clock before it sends anything, and renews it first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from worker.errors import TransientError
from worker.send_permit import permitted_by

log = logging.getLogger(__name__)


MARGIN = 0.9
"""The part of a lease for which a worker relies on it, as the database gave it a moment before."""


class _Lease:
    """A lease as far as its worker knows. ``renew``: renews it in the database; raises TransientError if it
    was given back or taken over."""

    def __init__(self, renew: Callable[[], object], lease_s: float) -> None:
        self._renew = renew
        self._lease_s = lease_s
        self._until = time.monotonic() + MARGIN * lease_s

    def renew(self) -> None:
        """Renew it. Raises what ``renew`` raises."""
        began = time.monotonic()
        self._renew()
        self._until = began + MARGIN * self._lease_s

    def require(self) -> None:
        """Renew it if it may have expired by now. Raises what ``renew`` raises."""
        if time.monotonic() >= self._until:
            self.renew()


@contextmanager
def lease_renewed(renew: Callable[[], object], lease_s: float, name: str) -> Iterator[None]:
    """Call ``renew`` three times per ``lease_s`` seconds until the block ends, and before a request to a
    gateway that comes when the lease may have expired.

    Renewal stops early if ``renew`` raises a TransientError, because the lease was given back or taken over;
    the block finds that out at its next write, or at that request. ``name``: what the lease is on, for the
    log.
    """
    over = threading.Event()
    lease = _Lease(renew, lease_s)
    work = partial(copy_context().run, _keep, lease, lease_s, name, over)  # with the block's log context
    renewal = threading.Thread(target=work, name="lease", daemon=True)
    renewal.start()
    try:
        with permitted_by(lease.require):
            yield
    finally:
        over.set()
        renewal.join()


def _keep(lease: _Lease, lease_s: float, name: str, over: threading.Event) -> None:
    while not over.wait(lease_s / 3):
        try:
            lease.renew()
        except TransientError:
            return
        except SQLAlchemyError as error:
            log.warning("the lease on %s was not renewed: %s", name, type(error).__name__)
