"""Acknowledgements that meet a broker which is away."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis
from kombu.message import Message

from worker.reconnect import ReconnectSafeConsumer


class LostChannel:
    """A channel whose broker has gone, which nobody has noticed yet."""

    no_ack_consumers = None

    def basic_ack(self, *_: Any, **__: Any) -> None:
        raise redis.ConnectionError("Connection closed by server.")

    basic_reject = basic_ack


@pytest.mark.parametrize("by", ["ack_log_error", "reject_log_error"])
def test_an_acknowledgement_that_finds_the_broker_gone_is_a_warning(
    by: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(channel=LostChannel(), delivery_tag="1", body="")
    consumer = ReconnectSafeConsumer.__new__(ReconnectSafeConsumer)
    consumer.__dict__["hub"] = None
    requeue = [False] if by == "reject_log_error" else []
    consumer.call_soon_ack(
        getattr(message, by), logging.getLogger("celery.worker.request"), (redis.ConnectionError,), *requeue
    )
    said = [(record.levelname, record.exc_info) for record in caplog.records]
    assert said == [("WARNING", None)]
