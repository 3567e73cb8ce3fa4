"""Fixtures: a database with all tables for each test, settings, a publisher, and services for the code."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.fleet import EMPTY_ALL_TABLES
from tests.worker_process import QUICK_ROUNDS
from worker.gateway.client import ClientPool
from worker.gateway.device import DeviceKey
from worker.lab.servers import LocalServices
from worker.runtime.services import Services
from worker.settings import Settings
from worker.workspace import tokens

BASE_URL = "http://127.0.0.1:8000"

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use as few hash rounds in this process as in the tests' workers."""
    monkeypatch.setattr(tokens, "ROUNDS", QUICK_ROUNDS)


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """An engine for a database with all tables and no rows, with connections for 24 threads."""
    with shared_engine.begin() as connection:
        connection.exec_driver_sql(EMPTY_ALL_TABLES)
    return shared_engine


@pytest.fixture
def database_url(services: LocalServices, migrated_template: str) -> Iterator[str]:
    """The URL of a separate database with all tables and no rows, for tests that start processes."""
    name = f"test_{next(_numbers)}"
    yield services.create_database(name, migrated_template)
    services.postgres.drop_database(name)


@pytest.fixture
def settings() -> Settings:
    """Settings with timeouts short enough for tests."""
    return Settings(
        database_url="postgresql+psycopg://nobody@127.0.0.1:9/none",  # type: ignore[arg-type]
        redis_url="redis://127.0.0.1:9/0",  # type: ignore[arg-type]
        base_url=BASE_URL,
        retry_inline_s=0,
        retry_timeout_s=30,
        lease_s=5,
        roster_batch_window_s=0,
    )


class Sent(list[tuple[str, Mapping[str, Any], str | None]]):
    """A publisher that keeps the messages it is given, or raises ``broken`` while that is set."""

    broken: Exception | None = None

    def __call__(self, name: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
        if self.broken is not None:
            raise self.broken
        self.append((name, dict(kwargs), task_id))

    def take(self) -> list[tuple[str, Mapping[str, Any], str | None]]:
        """The messages since the last call."""
        taken = list(self)
        self.clear()
        return taken


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture(scope="session")
def device_key() -> DeviceKey:
    return DeviceKey.generate()


@pytest.fixture
def hands(
    settings: Settings, engine: Engine, device_key: DeviceKey, sent: Sent
) -> Iterator[Callable[..., Services]]:
    """A function that makes services for the code under test; its keyword arguments change settings."""
    pools: list[ClientPool] = []

    def make(**changes: Any) -> Services:
        pools.append(ClientPool(device_key))
        return Services(settings.model_copy(update=changes), engine, pools[-1], sent)

    yield make
    for pool in pools:
        pool.close_all()
