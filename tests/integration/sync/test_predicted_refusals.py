"""A dry run says of a config write that would be refused what the run then says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.integration.sync.scene import Scene, make_scene, on
from worker.lab.simulator import Simulator

VARIABLES = {"OWNERS_URL": "http://127.0.0.1:9/owner"}
SHOP = {"providers": {"shop": {"baseUrl": "http://127.0.0.1:9/v1", "models": []}}}


@pytest.fixture
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(
        request.param,
        token="gateway-token",
        state_dir=tmp_path / "gateway",
        environment=VARIABLES,
        reply="OK",
    ) as running:
        yield running


@pytest.fixture
def scene(simulator: Simulator, engine: Engine, hands: Callable[..., Any]) -> Scene:
    return make_scene(simulator, engine, hands(retry_inline_s=5))


def including(scene: Scene, directive: Any) -> None:
    """The owner moves his agents into a file of their own."""
    config = json.loads(scene.simulator.config_path.read_text())
    scene.save("agents.json5", config["agents"])
    scene.save("openclaw.json", {**config, "agents": {"$include": directive}})


def with_shop(scene: Scene, **more: str) -> None:
    config = json.loads(scene.simulator.config_path.read_text())
    shop = {**SHOP["providers"]["shop"], **more}
    scene.save("openclaw.json", {**config, "models": {"providers": {"shop": shop}}})


def foretold(scene: Scene, agent: UUID) -> None:
    """An update and a sync of an agent that differs, and of one that is not there: first dry, then done."""
    bob = scene.agent("Bob")
    scene.execute("UPDATE agents SET name = 'Ada the Second' WHERE id = :id", id=agent)
    before = scene.simulator.config_path.read_bytes()
    said: dict[bool, list[Any]] = {}
    for dry_run in (True, False):
        options = {"dry_run": dry_run, "rotate_tokens": True}
        ada, new = (scene.ask("update_agent", agent_id=one, wake=False, **options) for one in (agent, bob))
        scene.serve()
        run = scene.sync(**options)
        said[dry_run] = [
            [
                (job.status, job.error, job.reason_code, _refusals(job.warnings))
                for job in map(scene.job, (ada, new))
            ],
            (run.status, run.error, run.reason_code, _refusals(run.warnings), run.result["roster_changes"]),
        ]
        assert scene.simulator.config_path.read_bytes() == before
    assert said[True] == said[False]
    [(status, error, code, warnings), (new_status, new_error, new_code, _)], synced = said[True]
    assert (status, error, code, len(warnings)) == ("succeeded", None, None, 1)
    assert new_status == "failed"
    assert new_code in ("rewrite_refused", "gateway_refused")
    assert synced[2] == new_code, "the only one that failed says why the sync did"
    assert warnings == [f"Its roster entry was left as it is. {new_error}"]


def _refusals(warnings: list[str]) -> list[str]:
    return [warning for warning in warnings if "left as it is" in warning]


@on("2026.2.12")
@pytest.mark.parametrize("name", ["$${TEXT}", "${OWNERS_URL}"], ids=["escape", "variable"])
def test_what_a_write_would_write_out(scene: Scene, name: str) -> None:
    scene.provision(agent := scene.agent("Ada"))
    with_shop(scene, name=name)
    foretold(scene, agent)


@on("2026.3.13")
def test_an_include_that_a_write_would_flatten(scene: Scene) -> None:
    scene.provision(agent := scene.agent("Ada"))
    including(scene, "./agents.json5")
    foretold(scene, agent)


@on("2026.9.6")
def test_an_included_file_that_the_release_does_not_write(scene: Scene) -> None:
    scene.provision(agent := scene.agent("Ada"))
    including(scene, ["./agents.json5"])
    foretold(scene, agent)


@on("2026.9.6")
def test_an_included_file_that_the_release_writes_is_no_refusal(scene: Scene) -> None:
    scene.provision(agent := scene.agent("Ada"))
    including(scene, "./agents.json5")
    scene.execute("UPDATE agents SET name = 'Ada the Second' WHERE id = :id", id=agent)
    assert _refusals(scene.sync(dry_run=True).warnings) == []
    assert _refusals(scene.sync().warnings) == []


@on("2026.2.12")
def test_a_name_that_this_release_cannot_hold_fails_a_dry_run_too(scene: Scene) -> None:
    scene.provision(agent := scene.agent("Ada"))
    scene.execute("UPDATE agents SET name = 'Bill ${BUDGET_OWNER}' WHERE id = :id", id=agent)
    errors = []
    for dry_run in (True, False):
        job = scene.ask("update_agent", agent_id=agent, wake=False, dry_run=dry_run)
        scene.serve()
        errors.append(scene.job(job).error)
    assert errors[0] is not None
    assert errors[0] == errors[1]
