"""What dry runs find to differ is on record until a job mends it (rules.md 54)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from tests.integration.sync.test_layers import deliver, layer, put
from tests.integration.sync.test_memory_files import folder
from tests.integration.sync.test_roll_outs import go
from tests.integration.sync.test_three_sides import restyle
from worker.jobs.store.pruning import prune
from worker.records.drift import DriftedAgent, drifted_agents, in_words


@pytest.fixture
def ann(scene: Scene) -> UUID:
    agent = scene.agent("Ann")
    scene.provision(agent)
    return agent


def known(scene: Scene) -> list[DriftedAgent]:
    with scene.engine.connect() as connection:
        return drifted_agents(connection, scene.fleet.gateway_id)


def look(scene: Scene, **options: Any) -> list[DriftedAgent]:
    assert scene.sync(include_main=False, dry_run=True, **options).status in ("succeeded", "partial")
    return known(scene)


@on_one_release
def test_what_differs_is_listed_since_it_was_first_seen_until_it_is_mended(scene: Scene, ann: UUID) -> None:
    assert look(scene) == []
    restyle(scene, "terse")
    assert look(scene, rotate_tokens=True, overwrite=True) == [], "it shows what was asked for"
    [first] = look(scene)
    assert "SOUL.md: its template changed" in in_words(first.differs)

    scene.execute("UPDATE agents SET name = 'Anna' WHERE id = :id", id=ann)
    (folder(scene, ann) / "USER.md").unlink()
    [again] = look(scene)
    assert (again.since, again.agent_id) == (first.since, ann)
    assert again.seen_at > first.seen_at
    assert again.job_id != first.job_id
    words = in_words(again.differs)
    assert {"SOUL.md: its template changed", "USER.md is missing", "roster entry: name"} <= set(words)

    export = scene.ask("export_agent", agent_id=ann)
    scene.serve()
    assert scene.job(export).status == "succeeded"
    assert known(scene) == [again], "it mends nothing"
    assert scene.sync(include_main=False).status == "succeeded"
    assert known(scene) == []
    planned = scene.ask("rollback", agent_id=ann, dry_run=True)
    scene.serve()
    assert scene.job(planned).result["files"]["SOUL.md"]["action"] == "update"
    assert known(scene) == [], "it shows what was asked for"
    assert look(scene) == []


@on_one_release
def test_a_conflict_that_a_sync_leaves_stays_listed_with_its_time(scene: Scene, ann: UUID) -> None:
    scene.execute("UPDATE agents SET name = 'Anna' WHERE id = :id", id=ann)
    soul = folder(scene, ann) / "SOUL.md"
    soul.write_text("Mine.\n" * 3)
    restyle(scene, "terse")
    [found] = look(scene)
    assert in_words(found.differs)[0] == "SOUL.md is a conflict: its template and the agent changed it"
    assert len(in_words(found.differs)) > 1
    scene.sync(include_main=False)
    [left] = known(scene)
    assert (left.since, list(left.differs)) == (found.since, ["files"])
    assert scene.sync(include_main=False, overwrite_files=["SOUL.md"]).status == "succeeded"
    assert known(scene) == []


@on_one_release
def test_an_agent_that_is_not_registered_differs_and_who_moved_or_went_is_gone(scene: Scene) -> None:
    ben = scene.agent("Ben")
    [found] = look(scene)
    assert in_words(found.differs) == ["it is not in its gateway's roster"]
    scene.provision(ben)
    assert known(scene) == []
    restyle(scene, "terse")
    assert len(look(scene)) == 1
    scene.execute("DELETE FROM agents WHERE id = :id", id=ben)
    assert known(scene) == []
    list(prune(scene.engine, timedelta(days=300)))
    assert scene.row("SELECT count(*) AS rows FROM provisioner.agent_drift").rows == 0


@on_one_release
def test_what_a_roll_out_is_about_to_change_is_no_drift(scene: Scene, ann: UUID) -> None:
    layer_of = layer(scene)
    put(scene, layer_of, "SOUL.md", "I am of old.")
    deliver(scene, layer_of, SOUL=1)
    scene.sync(include_main=False)
    deliver(scene, layer_of, SOUL=put(scene, layer_of, "SOUL.md", "I am made anew."))
    rollout = scene.ask("roll_out", gateway_id=scene.fleet.gateway_id, canary="1", include_main=False)
    go(scene, rollout, until=lambda: looks(scene) > 0)
    assert looks(scene) == 1
    assert known(scene) == []


def looks(scene: Scene) -> int:
    ended = "SELECT count(*) AS looks FROM provisioner.jobs WHERE result ->> 'dry_run' = 'true'"
    return int(scene.row(ended).looks)
