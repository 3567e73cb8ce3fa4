"""Renews a lease from a thread during the work under it, so that it expires only if its worker dies.

Without renewal, a slow gateway would outlast the lease and two workers would serve the same row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from worker.errors import TransientError

log = logging.getLogger(__name__)


@contextmanager
def lease_renewed(renew: Callable[[], object], lease_s: float, name: str) -> Iterator[None]:
    """Call ``renew`` three times per ``lease_s`` seconds until the block ends.

    Renewal stops early if ``renew`` raises a TransientError, because the lease was given back or taken over;
    the block finds that out at its next write. ``name``: what the lease is on, for the log.
    """
    over = threading.Event()
    work = partial(copy_context().run, _keep, renew, lease_s, name, over)  # with the block's log context
    renewal = threading.Thread(target=work, name="lease", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()


def _keep(renew: Callable[[], object], lease_s: float, name: str, over: threading.Event) -> None:
    while not over.wait(lease_s / 3):
        try:
            renew()
        except TransientError:
            return
        except SQLAlchemyError as error:
            log.warning("the lease on %s was not renewed: %s", name, type(error).__name__)
