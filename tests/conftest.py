"""Real servers for the tests: one Postgres and one Valkey for each session, emptied for each test.

The tests always start their own: they never touch the DATABASE_URL and REDIS_URL of the caller.
"""

from __future__ import annotations

import gc
import itertools
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import redis
from sqlalchemy import Engine

from models.migrate import migrate
from tests.releases import runs_here
from tests.scheduling import SharedFixtureScheduling, place_in_line
from worker.database import make_engine
from worker.lab.openclaw import Installed, OpenClaw
from worker.lab.servers import LocalServices

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and every process of a test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is slow, and a fresh clone first builds hypothesis's tables: neither is a fault of ours.
hypothesis.settings.register_profile(
    "patient", deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

_numbers = itertools.count(1)
_COLLECT_AFTER = 100_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--openclaw", default="2026.9.6", help="the OpenClaw release for tests/gateways")
    parser.addoption("--running", help="tests/smoke: the state folder of the gateway that is up")
    parser.addoption("--seeds", type=int, default=16, help="tests/integration/interleavings: how many")
    parser.addoption("--first-seed", type=int, default=1, help="the first of --seeds")
    parser.addoption("--agents", type=int, default=60, help="test_syncs.py: how many in a killed run")
    parser.addoption(
        "--seconds-away", type=float, default=4, help="tests/integration/worker: how long Redis is stopped"
    )
    parser.addoption(
        "--seconds-slow", type=float, default=0.05, help="the same: a gateway's answer, where a worker stops"
    )
    parser.addoption("--fifty", action="store_true", help="tests/acceptance: fifty agents on a real gateway")
    parser.addoption("--whole-model", action="store_true", help="tests/model: explore the large sizes too")
    parser.addoption(
        "--target", action="append", metavar="KIND:RELEASE", help="sim:2026.9.6, openclaw:2026.2.12, ..."
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that must not run on this release (tests/releases.py), and sort the others.

    pytest has put the tests that share a gateway last, but they take longest, so they must start first.
    """
    left_out = [item for item in items if not runs_here(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: place_in_line(item.nodeid))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from scanning all imported modules and collected tests again and again,
    which takes a sixth of the unit tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedFixtureScheduling:
    """Use our scheduler, whatever ``--dist`` says."""
    config.option.loadscopereorder = False  # keep our order instead of sorting by the number of tests
    return SharedFixtureScheduling(config, log)


@pytest.fixture(scope="session")
def installed_openclaw(pytestconfig: pytest.Config) -> Installed:
    """The OpenClaw release of ``--openclaw``, installed if necessary."""
    return OpenClaw.install(pytestconfig.getoption("--openclaw"))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """The session's servers. A test that stops one must start it again."""
    with LocalServices(tmp_path_factory.mktemp("services"), durable=False) as stack:
        yield stack


@pytest.fixture(scope="session")
def migrated_template(services: LocalServices) -> str:
    """The name of a database with all tables and no rows, which tests copy."""
    name = "migrated_template"
    engine = make_engine(services.create_database(name))
    migrate(engine, standalone=True)
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def shared_engine(services: LocalServices, migrated_template: str) -> Iterator[Engine]:
    """An engine for one database with all tables, with connections for 24 threads. It may hold rows."""
    engine = make_engine(services.create_database("shared", migrated_template), pool_size=24)
    yield engine
    engine.dispose()


@pytest.fixture
def redis_url(services: LocalServices) -> str:
    """The URL of the session's Valkey, emptied."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    return services.redis_url


@pytest.fixture
def empty_database_url(services: LocalServices) -> Iterator[str]:
    """The URL of a new, empty database, which is dropped at the end even if clients are connected."""
    name = f"empty_{next(_numbers)}"
    yield services.create_database(name)
    services.postgres.drop_database(name)
