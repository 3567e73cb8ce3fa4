"""A broker, and users of it with few rights."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from tests.worker_process import ROOT
from worker.redis_url import Broker, read_redis_url

OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.fixture
def broker(redis_url: str) -> Broker:
    return read_redis_url(redis_url)


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def user(admin: redis.Redis, broker: Broker) -> Iterator[Callable[..., Broker]]:
    """Makes a user with the rights that docs/operations.md lists; its arguments change them."""
    name = f"user-{secrets.token_hex(4)}"
    (line,) = re.findall(r"^ACL SETUSER provisioner on >PASSWORD (.*)$", OPERATIONS, re.MULTILINE)

    def make(*changes: str) -> Broker:
        run: Callable[..., object] = admin.execute_command  # untyped in redis-py
        run("ACL", "SETUSER", name, "reset", "on", ">pass", *line.split(), *changes)
        return replace(broker, user=name, password="pass")

    yield make
    admin.acl_deluser(name)
