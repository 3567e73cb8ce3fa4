"""The world of the scene: around the gateway that `make smoke` started, in `make test` a simulated one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.opening import open_world
from tests.acceptance.world import World
from tests.smoke.owner import owners_config
from tests.smoke.real_release import UNFINISHED
from worker.lab.openclaw import OpenClaw, RunningGateway
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator

DEFAULT_TARGETS = ("sim:2026.2.12", "sim:2026.9.6")
_FAILURES = pytest.StashKey[list[bool]]()


class Unfinished(Exception):
    """A job failed, or did not end: there is nothing to compare."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        targets = metafunc.config.getoption("--target") or DEFAULT_TARGETS
        metafunc.parametrize("world", targets, indirect=True, scope="package")


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object], report: object
) -> None:
    unfinished = call.excinfo is not None and isinstance(call.excinfo.value, Unfinished)
    node.config.stash.setdefault(_FAILURES, []).append(unfinished)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell ``make smoke`` by the exit code whether all that failed is that a job did not get done."""
    failures = session.config.stash.get(_FAILURES, [])
    if session.config.getoption("--running") and failures and all(failures):
        session.exitstatus = UNFINISHED


@pytest.fixture(scope="package")
def world(
    request: pytest.FixtureRequest, services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    _, _, release = request.param.partition(":")
    folder = tmp_path_factory.mktemp(f"smoke-{release}")
    database = f"smoke_{release.replace('.', '_')}"
    state = request.config.getoption("--running")
    if state:
        running = RunningGateway(OpenClaw.install(release), Path(state))
        # In the gateway's home: of workspaces elsewhere 2026.7.1 leaves the files of a deleted agent.
        root = Path(state) / "home" / "agents"
        with open_world(running, release, running.token, services, folder, database, root=root) as world:
            yield world
        return
    token = secrets.token_urlsafe(24)
    config, state_dir = owners_config(release, {}), folder / "state"
    with (
        Simulator(release, token=token, state_dir=state_dir, config=config, environment={}) as simulator,
        open_world(simulator, release, token, services, folder, database) as world,
    ):
        yield world
