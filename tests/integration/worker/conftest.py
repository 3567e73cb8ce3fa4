"""Workers for many tests, and for one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from tests.integration.worker.workshop import Workshop
from worker.lab.servers import LocalServices

_numbers = itertools.count(1)


_free = deque(range(1, 16))
"""Those of the broker's sixteen databases that no open workshop uses; 0 is for all other tests."""


@contextmanager
def _database_of_its_own(redis_url: str) -> Iterator[str]:
    """The URL of an empty database of the broker. Two workshops on one would take each other's messages."""
    number = _free.popleft()
    url = f"{redis_url.rsplit('/', 1)[0]}/{number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    yield url
    _free.append(number)


@contextmanager
def _opening(
    services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Workshop]]:
    """Opens workshops without workers; all close at the end."""
    with ExitStack() as stack:

        def open_one() -> Workshop:
            number = next(_numbers)
            folder: Path = tmp_path_factory.mktemp("workshop")
            database = services.create_database(f"workshop_{number}")
            broker = stack.enter_context(_database_of_its_own(services.redis_url))
            return stack.enter_context(Workshop(database, broker, folder))

        yield open_one


@pytest.fixture(scope="module")
def open_workshop(
    services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Workshop]]:
    """Opens workshops without workers. They close with their module: the clock of an idle worker ticks on."""
    with _opening(services, tmp_path_factory) as open_one:
        yield open_one


@pytest.fixture(scope="package")
def workshop(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Two workers that serve all tests of this package that do them no harm."""
    with _opening(services, tmp_path_factory) as open_one:
        workshop = open_one()
        workshop.start_worker()
        workshop.start_worker()
        yield workshop
        for worker in workshop.workers:
            worker.stop()
