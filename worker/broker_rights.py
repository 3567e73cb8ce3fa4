"""The rights that the user of REDIS_URL needs, and a check of which are missing.

They were found by watching Redis with MONITOR while a worker, beat, Flower and `celery inspect` ran (celery
and kombu 5.7); docs/operations.md shows the ACL. Redis checks a command's rights when the command is queued
in a transaction, so each command is queued as Celery would send it, and the transaction is discarded: nothing
is read or written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from worker.jobs.kinds import QUEUES

_INBOXES = ("worker@host.celery.pidbox", "0.reply.celery.pidbox", "celeryev.0")


def needed(database: int) -> Iterator[tuple[str, ...]]:
    """Yield commands as Celery sends them, one for each right."""
    for queue in (*QUEUES, *_INBOXES):
        yield ("LLEN", queue)
        yield ("LPUSH", queue, "")
        yield ("BRPOP", queue, "1")
        yield ("DEL", queue)
    yield from (("RPUSH", QUEUES[0], ""), ("RPOP", QUEUES[0]), ("EXISTS", QUEUES[0]))
    yield from (("HSET", "unacked", "0", ""), ("HGET", "unacked", "0"), ("HDEL", "unacked", "0"))
    yield from (("ZADD", "unacked_index", "0", ""), ("ZREM", "unacked_index", ""))
    yield ("ZREVRANGEBYSCORE", "unacked_index", "0", "0")
    yield ("ZRANGE", "unacked_index", "0", "0")
    yield from (("SET", "unacked_mutex", "", "NX"), ("GET", "unacked_mutex"))
    for exchange in ("control", "celeryev"):
        binding = f"_kombu.binding.{exchange}"
        yield from (("SADD", binding, ""), ("SREM", binding, ""), ("SMEMBERS", binding))
    yield ("ZRANGEBYSCORE", "_kombu.binding_deadlines", "0", "0")
    yield ("SADD", "_kombu.binding_permanent.control", "")
    yield from (("EVAL", "return 1", "0"), ("EVALSHA", "0", "0"), ("SCRIPT", "EXISTS", "0"), ("TIME",))
    for channel in (f"/{database}.celeryev/worker.online", f"/{database}.celery.pidbox"):
        yield ("PUBLISH", channel, "")
    for pattern in (f"/{database}.celeryev/*", f"/{database}.celery.pidbox"):
        yield ("PSUBSCRIBE", pattern)


def forbidden(pool: Any, database: int) -> list[str]:
    """The commands that the pool's user may not send, each with its key or channel."""
    connection = pool.get_connection()  # redis-py has no types below its client
    found: list[str] = []
    try:
        for command in (("MULTI",), *needed(database)):
            if (missing := _ask(connection, command)) is not None and missing not in found:
                found.append(missing)
            if found == ["MULTI"]:
                break  # outside a transaction the other commands would be executed
    finally:
        connection.disconnect()  # discards the transaction
        pool.release(connection)
    return found


def _ask(connection: Any, command: tuple[str, ...]) -> str | None:
    """Queue the command; returns it with its key if it is forbidden, else None."""
    connection.send_command(*command, check_health=False)
    try:
        connection.read_response()
    except NoPermissionError:
        return " ".join(command[:2])
    except ResponseError:
        return None
    return None
