"""Sends the deliveries that are due, in threads of its own.

The dispatcher calls it at each tick and never waits for it. A webhook that hangs holds one thread for ten
seconds, and is then left alone for a while; the others have theirs.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.database import DATABASE_AWAY
from worker.jobs.store.webhooks import (
    ClaimedWebhook,
    Delivery,
    claim_webhooks,
    next_delivery,
    note_delivered,
    note_failed,
    release_webhook,
)
from worker.shutdown_flag import shutting_down
from worker.webhooks.addresses import Networks
from worker.webhooks.messages import encode, end_of_job, message_headers
from worker.webhooks.post import PostFailedError, post

log = logging.getLogger(__name__)

MOST_AT_ONCE = 8
"""To how many webhooks one worker sends at a time."""
LEASE_S = 60.0
"""How long a webhook is kept by a worker that has died; more than one delivery can take."""
MOST_IN_A_ROW = 50
"""How many messages a webhook gets before others that wait have their turn."""
RETRY_AFTER_S = (5, 30, 300, 1800, 7200, 18_000, 36_000)
"""Seconds from each failed attempt to the next one of the same delivery: 18 hours in all, and then it is
given up."""
PAUSE_S = 5.0
"""Seconds without any attempt after a webhook has failed; doubled with each failure in a row, up to
320."""

Post = Callable[[str, Mapping[str, str], bytes, Networks], int]


class Deliverer:
    """``keys``: those of WEBHOOK_KEY, the newest first; ``allowed``: WEBHOOK_ALLOWED_NETWORKS."""

    def __init__(self, engine: Engine, keys: Sequence[str], allowed: Networks, post: Post = post) -> None:
        self._engine = engine
        self._keys = keys
        self._allowed = allowed
        self._post = post
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="webhook")
        self._at_work = 0
        self._lock = threading.Lock()

    def send_due(self) -> None:
        """Begin to send what is due to as many webhooks as there are threads, and return. Raises database
        errors."""
        with self._lock:
            free = MOST_AT_ONCE - self._at_work
        if free <= 0 or shutting_down.is_set():
            return
        with self._engine.begin() as connection:
            webhooks = claim_webhooks(connection, free, lease_s=LEASE_S)
        for webhook in webhooks:
            with self._lock:
                self._at_work += 1
            self._threads.submit(self._serve, webhook).add_done_callback(self._done)

    def stop(self) -> None:
        """Wait until no message is on its way: not for long, since ``shutting_down`` lets no other begin."""
        self._threads.shutdown(wait=True)

    def _done(self, _: Future[None]) -> None:
        with self._lock:
            self._at_work -= 1

    def _serve(self, webhook: ClaimedWebhook) -> None:
        """Send one message after another, until none is due, one fails, or it is the turn of others."""
        try:
            for _ in range(MOST_IN_A_ROW):
                if shutting_down.is_set():
                    break
                with self._engine.begin() as connection:
                    delivery = next_delivery(connection, webhook.id)
                if delivery is None or not self._deliver(webhook, delivery):
                    return
            with self._engine.begin() as connection:
                release_webhook(connection, webhook.id)
        except (SQLAlchemyError, *DATABASE_AWAY) as error:
            log.warning("webhook %s: not sent now: %s", webhook.name, type(error).__name__)
        except Exception:
            log.exception("webhook %s: failed by a fault of our own", webhook.name)

    def _deliver(self, webhook: ClaimedWebhook, delivery: Delivery) -> bool:
        """Send one message and record what came of it. Returns whether the webhook accepted it."""
        body = encode(end_of_job(delivery))
        headers = message_headers(self._keys, webhook.id, str(delivery.job_id), body)
        try:
            answer = self._post(webhook.url, headers, body, self._allowed)
        except PostFailedError as error:
            again_s = None if error.gone else retry_after_s(delivery.attempts, error.retry_after_s)
            gives_up = "given up" if again_s is None else f"again in {again_s:.0f} s"
            log.warning(
                "webhook %s: the end of job %s is not delivered, %s: %s",
                webhook.name,
                delivery.job_id,
                gives_up,
                error,
            )
            with self._engine.begin() as connection:
                note_failed(
                    connection,
                    webhook.id,
                    delivery.job_id,
                    str(error),
                    error.answer,
                    again_s=again_s,
                    pause_s=PAUSE_S,
                )
            return False
        with self._engine.begin() as connection:
            note_delivered(connection, webhook.id, delivery.job_id, answer, lease_s=LEASE_S)
        log.info("webhook %s: the end of job %s is delivered", webhook.name, delivery.job_id)
        return True


def retry_after_s(attempts: int, asked_s: float | None) -> float | None:
    """Seconds until a delivery that failed is sent again, None once it is given up. ``attempts``: how many
    failed before this one; ``asked_s``: what the webhook asked for."""
    if attempts >= len(RETRY_AFTER_S):
        return None
    return max(RETRY_AFTER_S[attempts] * random.uniform(0.8, 1.2), asked_s or 0)
