"""The oracle finds each loss that is planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.chaos.broken_scene import BrokenScene, Scenes, gateways_of
from tests.chaos.oracle import State, differences, left_open, state_of, untrue_results, woken_twice
from worker.gateway.address import GatewayAddress
from worker.records.gateway_repository import require_gateway


@pytest.fixture(params=["2026.2.12", "2026.9.6"])
def scene(shared_engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BrokenScene]:
    with Scenes(shared_engine, tmp_path).open(request.param) as scene:
        scene.provision(scene.agent("Ada"), scene.agent("Bob"))
        yield scene


def state(scene: BrokenScene) -> State:
    return state_of(scene.engine, gateways_of(scene))


def folder_of(scene: BrokenScene, name: str) -> Path:
    agent: UUID = scene.row("SELECT id FROM agents WHERE name = :name", name=name).id
    return scene.simulator.workspace(f"mc-{agent}")


def lose_an_agent(scene: BrokenScene) -> None:
    client = scene.services.clients.client(_address(scene))
    agent = scene.row("SELECT id FROM agents WHERE name = 'Ada'").id
    client.call("agents.delete", {"agentId": f"mc-{agent}", "deleteFiles": False})


def _address(scene: BrokenScene) -> GatewayAddress:
    with scene.engine.connect() as connection:
        return require_gateway(connection, scene.fleet.gateway_id).address


def lose_a_file(scene: BrokenScene) -> None:
    (folder_of(scene, "Ada") / "SOUL.md").unlink()


def spoil_a_file(scene: BrokenScene) -> None:
    path = folder_of(scene, "Bob") / "SOUL.md"
    path.write_text(path.read_text() + "x")


def leave_a_file(scene: BrokenScene) -> None:
    (folder_of(scene, "Bob") / "LEFT.md").write_text("x")


def lose_a_token(scene: BrokenScene) -> None:
    scene.execute("UPDATE agents SET agent_token_hash = 'pbkdf2_sha256$1$AA$AA' WHERE name = 'Ada'")


def lose_a_row(scene: BrokenScene) -> None:
    scene.execute("DELETE FROM agents WHERE name = 'Ada'")


def leave_a_status(scene: BrokenScene) -> None:
    scene.execute("UPDATE agents SET status = 'updating' WHERE name = 'Ada'")


LOSSES = (lose_a_file, spoil_a_file, leave_a_file, lose_a_token, lose_a_row, leave_a_status)


@pytest.mark.parametrize("plant", [lose_an_agent, *LOSSES], ids=lambda plant: plant.__name__)
def test_a_planted_loss_is_found(scene: BrokenScene, plant: Callable[[BrokenScene], None]) -> None:
    before = state(scene)
    assert not differences(before, state(scene))
    assert not left_open(scene.engine) + untrue_results(scene.engine) + woken_twice([scene.simulator])
    plant(scene)
    assert differences(before, state(scene))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE provisioner.jobs SET finished_at = NULL", "jobs that have not ended"),
        ("UPDATE provisioner.job_agents SET lease_until = now()", "leases of rows"),
        ("UPDATE provisioner.jobs SET next_attempt_at = now()", "jobs that are still due"),
        ("UPDATE provisioner.job_agents SET published_at = now()", "rows that are still due"),
        ("UPDATE provisioner.roster_intents SET applied_at = NULL", "open intents"),
        ("UPDATE provisioner.gateway_states SET writer_owner = 'w', writer_until = now() + interval '1 h'",
         "roster writers"),
    ],
)  # fmt: skip
def test_what_is_left_open_is_found(scene: BrokenScene, statement: str, said: str) -> None:
    scene.execute(statement)
    assert any(said in found for found in left_open(scene.engine))


def test_an_untrue_result_is_found(scene: BrokenScene) -> None:
    scene.sync(include_main=False)
    assert not untrue_results(scene.engine)
    scene.execute(
        "UPDATE provisioner.jobs SET result = jsonb_set(result, '{agents_updated}', '9')"
        " WHERE kind = 'sync_gateway'"
    )
    scene.execute("UPDATE provisioner.job_agents SET status = 'failed' WHERE job_id IN"
                  " (SELECT id FROM provisioner.jobs WHERE kind = 'provision_agent')")  # fmt: skip
    assert len(untrue_results(scene.engine)) == 3


def test_a_second_wake_is_found(scene: BrokenScene) -> None:
    client = scene.services.clients.client(_address(scene))
    agent = scene.row("SELECT id FROM agents WHERE name = 'Ada'").id
    wake = {"sessionKey": f"agent:mc-{agent}:main", "message": "Go.", "idempotencyKey": "once"}
    for _ in range(2):
        client.call("chat.send", wake)
    shows = scene.simulator.release.roster_is_map
    assert bool(woken_twice([scene.simulator])) is not shows
