"""The same tests on the simulator (``make test-lab``) and on real releases (``make test-gateways``)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.opening import open_world
from tests.acceptance.owner import OWNERS_VARIABLES, owners_config
from tests.acceptance.world import World
from tests.gateways.stub_model import StubModel
from worker.lab.openclaw import OpenClaw, RunningGateway
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator

DEFAULT_TARGETS = ("sim:2026.2.12", "sim:2026.9.6")
"""2026.3.13 asks of us what 2026.2.12 does: it is here by ``--target`` alone, and in tests/conformance."""
_COMEBACKS = pytest.StashKey[list[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        targets = metafunc.config.getoption("--target") or DEFAULT_TARGETS
        metafunc.parametrize("world", targets, indirect=True, scope="package")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a target cannot show: ``openclaw`` is for real releases, ``model`` for those that run
    one (not the simulator, and not 2026.2.12, whose agents' runs all fail: gateways.md 3), from ``since``.
    What uses up a world's agents or unsettles its gateway (``last``) comes behind the rest of that world."""

    def target_of(item: pytest.Item) -> str:
        return str(getattr(item, "callspec", None) and item.callspec.params.get("world", ""))  # type: ignore[attr-defined]

    def fits(item: pytest.Item) -> bool:
        target = target_of(item)
        model = item.get_closest_marker("model")
        if model is not None:
            since = f"openclaw:{model.kwargs.get('since', '2026.3')}"
            return target.startswith("openclaw:") and target >= since
        if item.get_closest_marker("fifty") and not target.startswith("sim:"):
            return bool(config.getoption("--fifty"))
        return not (item.get_closest_marker("openclaw") and target.startswith("sim:"))

    left_out = [item for item in items if "world" in getattr(item, "fixturenames", ()) and not fits(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    began: dict[str, int] = {}
    places = {
        item: (
            began.setdefault(target_of(item) or item.nodeid, n),
            item.get_closest_marker("last") is not None,
        )
        for n, item in enumerate(items)
    }
    items.sort(key=places.__getitem__)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process of ``pytest -n`` has to say at the end is said by the one that started it."""
    node.config.stash.setdefault(_COMEBACKS, []).extend(
        getattr(node, "workeroutput", {}).get("comebacks", [])
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_COMEBACKS, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="package")
def world(
    request: pytest.FixtureRequest, services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A gateway that serves all of these tests, with all that provisions agents on it. It ends with them: its
    workers would go on ticking beside all others."""
    kind, _, release = request.param.partition(":")
    real = kind != "sim"
    folder = tmp_path_factory.mktemp(f"{kind}-{release}")
    state, token = folder / "state", secrets.token_urlsafe(24)
    with StubModel() as model:
        has_model = real and release > "2026.2.12"
        config = owners_config(release, model.config if has_model else {})
        environment = {**OWNERS_VARIABLES, "GATEWAY_TOKEN": token}
        process: Simulator | RunningGateway
        if real:
            process = RunningGateway(
                OpenClaw.install(release),
                state,
                token=token,
                config_extra=config,
                env_extra=environment,
                supervised=True,
            )
        else:
            process = Simulator(
                release,
                token=token,
                state_dir=state,
                config=config,
                environment=environment,
                reply="HEARTBEAT_OK",
            )
        process.start()
        database = f"acceptance_{kind}_{release.replace('.', '_')}"
        with open_world(
            process, release, token, services, folder, database, model if has_model else None
        ) as world:
            yield world
        process.stop()
        if isinstance(process, RunningGateway) and process.comebacks:
            ends = f"OpenClaw {release} ended by itself, and its supervisor started it again: exit codes"
            output = getattr(request.config, "workeroutput", None)
            told = request.config.stash.setdefault(_COMEBACKS, [])
            told.append(f"{ends} {process.comebacks}")
            if output is not None:
                output["comebacks"] = told
