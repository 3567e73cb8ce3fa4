"""The gateways that the suite runs against: ``--target sim:RELEASE`` or ``--target openclaw:RELEASE``.

Give ``--target`` as often as you like; without it, all simulated releases are tried. One gateway
is started for each, and serves the whole suite.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conformance.expected import EXPECTED, Expected
from tests.conformance.peer import Device, Peer, meet_when_up
from tests.releases import ON_DEMAND
from worker.lab.openclaw import OpenClaw, RunningGateway
from worker.lab.simulator import Simulator, Timings

DEFAULT_TARGETS = ("sim:2026.2.12", "sim:2026.2.26", "sim:2026.3.13", "sim:2026.9.6")
SIMULATED_PACE = Timings(restart_delay_s=0.7, restart_cooldown_s=3.0, limit_window_s=60.0)
"""Slow enough for a busy machine to do between two restarts what the suite does there."""

OWNERS_CONFIG: dict[str, Any] = {
    "models": {
        "providers": {
            "owners": {"baseUrl": "http://127.0.0.1:9/v1", "apiKey": "owners-own-key", "models": []},
            "named": {"baseUrl": "${OWNERS_URL}", "apiKey": "${OWNERS_KEY}", "models": []},
        }
    }
}
"""Keys of the gateway's owner, which nothing here may change or show."""

OWNERS_VARIABLES = {"OWNERS_URL": "http://127.0.0.1:9/owner", "OWNERS_KEY": "owners-hidden-key"}
"""The gateway's environment, as far as its config names it."""


class Process(Protocol):
    """What a simulator and a real gateway have in common."""

    @property
    def url(self) -> str: ...

    def start(self) -> object: ...

    def stop(self) -> None: ...


@dataclass
class Target:
    """A running gateway, and how patient to be with it."""

    release: str
    real: bool
    token: str = field(repr=False)
    state_dir: Path
    process: Process
    expected: Expected

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def timeout_s(self) -> float:
        return 60.0 if self.real else 30.0

    @property
    def quiet_s(self) -> float:
        """How long to watch for something that must not happen."""
        return 4.0 if self.real else 0.5

    def stored_config(self) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads((self.state_dir / "openclaw.json").read_text(encoding="utf-8"))
        return stored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here runs on the releases that are tried on demand, too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.releases(*ON_DEMAND))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        targets = metafunc.config.getoption("--target") or DEFAULT_TARGETS
        metafunc.parametrize("target", targets, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    kind, _, release = request.param.partition(":")
    state_dir = tmp_path_factory.mktemp(kind) / "state"
    token = secrets.token_urlsafe(24)
    process: Simulator | RunningGateway
    if kind == "sim":
        process = Simulator(
            release,
            token=token,
            state_dir=state_dir,
            config=OWNERS_CONFIG,
            environment=OWNERS_VARIABLES,
            timings=SIMULATED_PACE,
        )
    else:
        installed = OpenClaw.install(release)
        process = RunningGateway(
            installed, state_dir, token=token, config_extra=OWNERS_CONFIG, env_extra=OWNERS_VARIABLES
        )
    process.start()
    yield Target(release, kind != "sim", token, state_dir, process, EXPECTED[release])
    process.stop()


@pytest.fixture
def peer(target: Target) -> Iterator[Peer]:
    """A connected peer with all scopes, as a new device: so no test eats from another's rate limit."""
    with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
        yield peer
