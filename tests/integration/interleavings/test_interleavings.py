"""Random interleavings of jobs, roster writers, an outsider, faults and deaths, on the simulated releases:
the roster ends as a serial run of the same changes leaves it, and nothing stays open.

Each seed is a world of its own, and the same each time: ``--first-seed 1234 --seeds 1`` runs that one again,
``--seeds 3000`` runs thousands.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import execute, seed_fleet
from tests.integration.interleavings.program import OWNERS, Program
from tests.integration.interleavings.stage import Stage
from worker.gateway.address import GatewayAddress
from worker.gateway.dialect import Dialect
from worker.lab.simulator import Simulator, Timings
from worker.lab.simulator.known_releases import RELEASES
from worker.runtime.services import Services

TOKEN = "the-gateways-own-token"
PACE = Timings(
    config_write_s=0.005,
    restart_delay_s=0.01,
    restart_cooldown_s=0.05,
    limit_window_s=0.2,
    reload_delay_s=0.01,
    down_s=0.01,
    closing_s=0.005,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, count = (metafunc.config.getoption(name) for name in ("--first-seed", "--seeds"))
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(first, first + count))


def config_with(release: str, known: Mapping[UUID, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the gateway's owner has in the config: an agent, a key, and agents of ours from another time."""
    entries = {"main": {}, OWNERS: {"name": "Owner's", "identity": {"emoji": "owl"}}}
    entries |= {f"mc-{agent_id}": dict(entry) for agent_id, entry in known.items()}
    agents: dict[str, Any] = {"entries": entries, "ownership": "explicit"}
    if not RELEASES[release].roster_is_map:
        agents = {"list": [{"id": key, **entry} for key, entry in entries.items()]}
    return {"agents": agents, "ui": {"seamColor": "#123456"}}


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def program(
    chance: random.Random, engine: Engine, tmp_path: Path, hands: Callable[..., Services]
) -> Iterator[Program]:
    release = chance.choice(sorted(RELEASES))
    fleet = seed_fleet(engine, agents=chance.randint(2, 5), token=TOKEN)
    known = {
        key: {"name": "From before", "workspace": "~/elsewhere", "identity": {"emoji": "fox"}}
        for key in fleet.agents
        if chance.random() < 0.4
    }
    config = config_with(release, known)
    with Simulator(release, token=TOKEN, state_dir=tmp_path, timings=PACE, config=config) as simulator:
        execute(engine, "UPDATE gateways SET url = :url", url=simulator.url)
        workers = [hands(retry_inline_s=0.2) for _ in range(chance.randint(1, 3))]
        stage = Stage(
            chance,
            replace(workers[0]),
            engine,
            tuple(worker.clients for worker in workers),
            fleet,
            GatewayAddress(simulator.url, TOKEN, False),
            simulator,
        )
        yield Program(stage, chance, known)


# A simulator that is restarted while it accepts leaves a socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_roster_ends_as_a_serial_run_leaves_it(program: Program, seed: int) -> None:
    stage = program.stage
    try:
        program.run()
        hello = stage.clients[0].client(stage.address).hello()
        program.verify(Dialect.from_hello(hello.server_version, hello.methods))
    except BaseException:
        print(f"seed {seed}, {stage.simulator.release.name}", *stage.log, sep="\n")
        raise
