"""The rights that docs/operations.md lists are enough for a Redis user; a user that lacks one is told so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from worker.broker import BrokerLook, look_at
from worker.redis_url import read_redis_url

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
RULES = re.findall(r"ACL SETUSER provisioner on >PASSWORD\n(.*?)```", PAGE, re.DOTALL)[0].split()
USER, PASSWORD = "least-of-all", "a-password-of-its-own"


@pytest.fixture
def looked(redis_url: str) -> Iterator[Callable[[list[str]], BrokerLook]]:
    """What a look at the broker finds for a user with these rules."""
    place = urlsplit(redis_url)

    def look(rules: list[str]) -> BrokerLook:
        client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules)
        return look_at(read_redis_url(f"redis://{USER}:{PASSWORD}@{place.hostname}:{place.port}/0"))

    with redis.Redis.from_url(redis_url) as client:
        yield look
        client.execute_command("ACL", "DELUSER", USER)


def test_the_documented_rights_are_enough_and_nothing_is_left_behind(
    looked: Callable[[list[str]], BrokerLook], redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = sorted(client.keys())
        assert looked(RULES) == BrokerLook(policy="noeviction")
        assert sorted(client.keys()) == before


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("~sync*", "LPUSH sync"),
        ("~unacked*", "HSET unacked"),
        ("~_kombu.binding*", "SADD _kombu.binding.provisioning"),
        ("&/0.celeryev/*", "PUBLISH /0.celeryev/x"),
        ("&/0.celery.pidbox", "PSUBSCRIBE /0.celery.pidbox"),
        ("+@transaction", "MULTI"),
    ],
)
def test_a_missing_right_is_named(
    looked: Callable[[list[str]], BrokerLook], missing: str, named: str
) -> None:
    fault = looked([rule for rule in RULES if rule != missing]).fault
    assert fault is not None
    assert fault.startswith("its user may not use ")
    assert named in fault
    assert "docs/operations.md" in fault
