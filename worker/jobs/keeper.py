"""Keeps a claim alive while its worker is: a lease that runs out means a dead worker, and nothing else.

Without it a slow gateway would outlast the lease, and two workers would be at work on one agent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.jobs.ledger import Claim, LeaseLostError, renew

log = logging.getLogger(__name__)


@contextmanager
def kept_alive(engine: Engine, held: Claim, lease_s: float) -> Iterator[None]:
    """Renew the claim every third of ``lease_s`` seconds until the block ends, the row is let go, or another
    worker has it: then whatever the block writes next raises LeaseLostError."""
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(engine, held, lease_s, over), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _keep(engine: Engine, held: Claim, lease_s: float, over: threading.Event) -> None:
    while not over.wait(lease_s / 3):
        try:
            with engine.begin() as connection:
                renew(connection, held, lease_s=lease_s)
        except LeaseLostError:
            return
        except SQLAlchemyError as error:
            log.warning("the lease on agent %s was not renewed: %s", held.agent_id, type(error).__name__)
