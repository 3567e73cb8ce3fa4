"""At every moment a message is in its queue, noted as unacknowledged, or done; and it comes at once."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Message, Queue
from redis.exceptions import RedisError

from tests.chaos.proxy import Proxy
from worker.messages import channel
from worker.messages.transport import SafeTransport
from worker.redis_url import Broker

AT_ONCE_S = 0.15
"""Far less than there is between two looks at an empty queue."""


class Taker:
    """A consumer of one queue. A context manager; what it has not acknowledged at its end stays noted."""

    def __init__(self, broker: Broker, queue: str) -> None:
        login = f"{broker.user or ''}:{broker.password}"
        url = f"redis://{login}@127.0.0.1:{broker.port}/{broker.database}"
        self._connection = Connection(url, transport=SafeTransport)
        self._queue = queue
        self.taken: list[Message] = []

    def __enter__(self) -> Taker:
        queue = Queue(self._queue, Exchange(""), self._queue)
        consumer = Consumer(self._connection, [queue], on_message=self.taken.append)
        consumer.qos(prefetch_count=10)
        consumer.consume()
        return self

    def __exit__(self, *_: object) -> None:
        transport: Any = self._connection.transport
        for each in list(transport.channels):
            each.do_restore = False
        self._connection.close()

    def wait(self, for_s: float) -> None:
        """Serve events for so many seconds."""
        until = time.monotonic() + for_s
        while (left_s := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=left_s)

    def until(self, count: int, within_s: float = 5.0) -> float:
        """Serve events until so many messages were taken; the seconds that took."""
        began = time.monotonic()
        while len(self.taken) < count:
            assert time.monotonic() - began < within_s, self.taken
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.02)
        return time.monotonic() - began

    @property
    def bodies(self) -> list[str]:
        return [str(message.decode()) for message in self.taken]


@pytest.fixture
def queue(admin: redis.Redis) -> Iterator[str]:
    name = f"provisioning.{uuid4().hex}"
    admin.delete("unacked", "unacked_index")
    yield name
    admin.delete(name, "unacked", "unacked_index")


def put(admin: redis.Redis, queue: str, body: str, priority: int = 0) -> None:
    place = {"exchange": "", "routing_key": queue}
    properties = {"delivery_tag": "the sender's", "delivery_info": place, "priority": priority}
    message = {"body": body, "content-type": "text/plain", "headers": {}, "properties": properties}
    admin.lpush(f"{queue}\x06\x16{priority}" if priority else queue, json.dumps(message))


def test_a_message_whose_answer_was_lost_comes_again(admin: redis.Redis, broker: Broker, queue: str) -> None:
    with Proxy(broker.port, random.Random(1)) as proxy:
        proxy.ends_at = b"the only one"

        def lose() -> None:
            behind = replace(broker, port=proxy.port)
            with Taker(behind, queue) as taker, pytest.raises((RedisError, OSError)):
                taker.until(1)
            assert (taker.taken, admin.llen(queue), admin.hlen("unacked")) == ([], 0, 1)

        put(admin, queue, "the only one")
        lose()
        with Taker(broker, queue) as taker:
            taker.until(1, within_s=AT_ONCE_S)
            assert taker.bodies == ["the only one"]
            taker.taken[0].ack()
        assert admin.hlen("unacked") == admin.zcard("unacked_index") == 0

        put(admin, queue, "the only one")
        lose()
        channel._unanswered.clear()  # it is another process, for this one was killed
        (tag,) = admin.zrange("unacked_index", 0, -1)
        admin.hset("unacked", "no message", "[")
        admin.zadd("unacked_index", {"no message": 2, str(tag): 1})  # ten minutes later
        with Taker(broker, queue) as taker:
            taker.until(1)
            assert taker.bodies == ["the only one"]
        assert admin.hlen("unacked") == 1


def test_a_message_comes_at_once_and_waiting_for_it_costs_a_look_a_second(
    admin: redis.Redis, user: Callable[..., Broker], queue: str
) -> None:
    with Taker(user(), queue) as taker:
        taker.wait(0.05)
        for n in range(3):
            taker.wait(0.2)
            put(admin, queue, str(n), priority=3 * (n % 2))
            assert taker.until(n + 1) < AT_ONCE_S
        assert taker.bodies == list("012")
        for message in taker.taken:
            message.ack()
        taker.wait(0.05)
        before = looks(admin)
        taker.wait(0.7)
        assert looks(admin) - before <= 1


def test_without_the_right_to_be_told_a_message_comes_soon(
    admin: redis.Redis, user: Callable[..., Broker], queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Taker(user("-client|tracking"), queue) as taker:
        taker.wait(0.05)
        put(admin, queue, "late")
        assert taker.until(1) < 0.25 + AT_ONCE_S
    assert "its queues are looked at every 0.25 seconds" in caplog.text


def test_a_full_server_notes_what_is_taken(admin: redis.Redis, broker: Broker, queue: str) -> None:
    put(admin, queue, "taken")
    with Taker(broker, queue) as taker:
        admin.config_set("maxmemory", 1)
        try:
            taker.until(1)
        finally:
            admin.config_set("maxmemory", 0)
        assert (admin.llen(queue), admin.hlen("unacked")) == (0, 1)


def looks(admin: redis.Redis) -> int:
    """How often the queues were looked at, by all workers."""
    found: Any = admin.info("commandstats")
    return int(found.get("cmdstat_eval", {"calls": 0})["calls"])
