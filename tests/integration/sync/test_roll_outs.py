"""A change reaches agents ring by ring, and stops where it does harm (rules.md 56, 57)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.integration.sync.scene import Scene, make_scene, on_one_release
from tests.integration.sync.test_layers import deliver, file, layer, put
from worker.errors import PermanentError
from worker.jobs.outbox import publish_due
from worker.jobs.store import roll_outs
from worker.jobs.store.cancelling import cancel
from worker.lab.simulator import Simulator
from worker.records.agent_repository import load_agent
from worker.records.agent_settings import set_settings


@pytest.fixture
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    release = getattr(request, "param", "2026.9.6")
    with Simulator(release, token="gateway-token", state_dir=tmp_path / "gateway", reply="OK") as running:
        yield running


@pytest.fixture
def scene(simulator: Simulator, engine: Engine, hands: Callable[..., Any]) -> Scene:
    return make_scene(simulator, engine, hands(retry_inline_s=5))


@pytest.fixture
def agents(scene: Scene) -> list[UUID]:
    """Five members of a board and its lead, provisioned, and a text of theirs that is promoted."""
    found = [scene.agent(f"Ann {n}") for n in range(5)] + [scene.agent("Lead", lead=True)]
    scene.provision(*found)
    put(scene, layer(scene), "SOUL.md", "I am {{ agent_name }}, as of old.")
    deliver(scene, layer(scene), SOUL=1)
    scene.sync(include_main=False)
    return found


def change(scene: Scene, text: str = "I am {{ agent_name }}, made anew.", *, of: str = "board") -> None:
    number = put(scene, layer(scene, of), "SOUL.md", text)  # type: ignore[arg-type]
    deliver(scene, layer(scene, of), SOUL=number)  # type: ignore[arg-type]


def ask(scene: Scene, **options: Any) -> UUID:
    given = {"canary": "1", "include_main": False, "gateway_id": scene.fleet.gateway_id, **options}
    return scene.ask("roll_out", **given)


def go(scene: Scene, job_id: UUID, *, until: Callable[[], bool] | None = None) -> Any:
    """Serve message by message until the job has ended, or until something is so; what is parked comes at
    once."""
    due = (
        "UPDATE provisioner.jobs SET next_attempt_at = now() WHERE status = 'running' AND lease_until IS NULL"
    )
    for _ in range(3000):
        known = scene.row("SELECT count(*) AS n FROM provisioner.jobs WHERE id = :id", id=job_id).n
        if known and scene.job(job_id).status not in ("queued", "running"):
            return scene.job(job_id)
        if known and until is not None and until():
            return scene.job(job_id)
        if not scene.messages:
            publish_due(scene.engine, scene.send)
        if not scene.messages:
            scene.execute(due)
            publish_due(scene.engine, scene.send)
        if scene.messages:
            scene.one()
    job = scene.job(job_id)
    raise AssertionError(f"still {job.status}, {job.phase}: {job.error}")


def rows(scene: Scene, job_id: UUID) -> list[roll_outs.Member]:
    with scene.engine.connect() as connection:
        return roll_outs.members_of(connection, job_id)


def states(scene: Scene, job_id: UUID) -> dict[int, Counter[str]]:
    found: dict[int, Counter[str]] = {}
    for each in rows(scene, job_id):
        found.setdefault(each.ring, Counter())[each.state] += 1
    return found


def souls(scene: Scene, agents: list[UUID]) -> Counter[str]:
    return Counter(file(scene, agent, "SOUL.md").split(", ")[-1].strip() for agent in agents)


def test_rings_grow_and_each_waits_for_a_good_run_of_every_agent(scene: Scene, agents: list[UUID]) -> None:
    change(scene)
    plan = go(scene, ask(scene, dry_run=True))
    assert [ring["agents"] for ring in plan.result["rings"]] == [1, 3, 2]
    assert (plan.result["restarts"], plan.result["left_out"]) == ({}, [])
    assert souls(scene, agents) == {"as of old.": 6}
    job_id = ask(scene)
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "health")
    assert states(scene, job_id) == {1: {"delivered": 1}, 2: {"waiting": 3}, 3: {"waiting": 2}}
    assert souls(scene, agents) == {"made anew.": 1, "as of old.": 5}
    # Another job gives agents that the roll-out has not reached what they had.
    assert scene.sync(include_main=False).result["files_written"] == 0
    scene.provision(agents[3])
    assert souls(scene, agents) == {"made anew.": 1, "as of old.": 5}
    assert scene.job(job_id).lease_until is None
    busy = "SELECT count(*) AS n FROM provisioner.job_agents WHERE status = 'running'"
    assert scene.row(busy).n == 0
    for ring in (1, 2, 3):
        go(scene, job_id, until=lambda ring=ring: states(scene, job_id)[ring]["delivered"] > 0)  # type: ignore[misc]
        for each in rows(scene, job_id):
            if each.ring == ring:
                run(scene, each.agent_id)
        go(scene, job_id, until=lambda ring=ring: not states(scene, job_id)[ring]["delivered"])  # type: ignore[misc]
    job = go(scene, job_id)
    assert (job.status, job.error) == ("succeeded", None)
    assert souls(scene, agents) == {"made anew.": 6}
    assert (job.result["agents_healthy"], job.result["agents_reached"]) == (6, 6)
    assert scene.row("SELECT count(*) AS n FROM provisioner.held_files").n == 0


def run(scene: Scene, agent_id: UUID) -> None:
    """The agent runs by itself."""
    with scene.engine.connect() as connection:
        record = load_agent(connection, agent_id)
    client = scene.services.clients.client(record.address)
    client.call(
        "chat.send", {"sessionKey": record.session_key, "message": "Go.", "idempotencyKey": str(agent_id)}
    )


def test_a_template_that_is_wrong_for_three_stops_in_the_first_ring(scene: Scene, agents: list[UUID]) -> None:
    change(scene)
    for agent in agents[:3]:
        scene.execute("UPDATE agents SET soul_template = '{{ nothing.such }}' WHERE id = :id", id=agent)
    scene.execute("UPDATE agents SET soul_template = NULL WHERE id = :id", id=agents[3])
    job_id = ask(scene, canary="2", probe=True)
    job = go(scene, job_id)
    assert (job.status, job.reason_code) == ("failed", "budget_spent")
    assert "Stopped in ring 1 of 2" in job.error
    assert "will fail: " in job.warnings[0]
    assert ". 4 agents that were not reached keep what they had." in job.error
    assert job.result["agents_left"] == 4
    assert souls(scene, agents)["as of old."] >= 5
    # It stays so, until a new roll-out plans past what is held.
    assert scene.sync(include_main=False).result["files_written"] == 0
    scene.execute("UPDATE agents SET soul_template = NULL")
    again = go(scene, ask(scene, canary="100%", probe=True))
    assert (again.status, again.error) == ("succeeded", None)
    assert souls(scene, agents) == {"made anew.": 6}


def test_nobody_heard_of_counts_as_failed_and_what_changed_goes_back(
    scene: Scene, agents: list[UUID]
) -> None:
    change(scene)
    job = go(scene, ask(scene, canary="2", wait="0s", rollback_on_failure=True))
    assert (job.status, job.result["agents_unknown"], job.result["agents_left"]) == ("failed", 2, 4)
    assert "No run of it that ended was seen within 0s." in job.error
    scene.serve()
    assert scene.job(UUID(job.result["rollback_job_id"])).status == "succeeded"
    assert souls(scene, agents) == {"as of old.": 6}
    accepted = go(scene, ask(scene, canary="2", wait="0s", accept_unknown=True))
    # What was rolled back is held by that, and stays so.
    assert (accepted.status, accepted.result["agents_total"]) == ("succeeded", 4)


def test_paused_resumed_and_aborted(scene: Scene, agents: list[UUID]) -> None:
    change(scene)
    job_id = ask(scene, wait="0s", accept_unknown=True)
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "deliver")
    with scene.engine.begin() as connection:
        assert roll_outs.pause(connection, job_id)
        assert not roll_outs.pause(connection, job_id)
    go(scene, job_id, until=lambda: scene.job(job_id).reason_code == "paused")
    assert sum(states(scene, job_id)[2].values()) == states(scene, job_id)[2]["waiting"]
    second = go(scene, ask(scene))
    assert (second.status, f"Roll-out {job_id} is open" in second.error) == ("failed", True)
    with scene.engine.begin() as connection:
        assert roll_outs.resume(connection, job_id)
        assert not roll_outs.resume(connection, job_id)
    go(scene, job_id, until=lambda: states(scene, job_id).get(2, Counter())["delivering"] > 0)
    with scene.engine.begin() as connection:
        cancel(connection, job_id)
    job = go(scene, job_id)
    assert (job.status, job.reason_code) == ("cancelled", "cancelled")
    assert scene.sync(include_main=False).result["files_written"] == 0
    assert souls(scene, agents)["as of old."] == job.result["agents_left"] >= 2


def test_a_canary_that_is_gone_has_a_stand_in_and_one_that_cannot_be_judged_is_refused(
    scene: Scene, agents: list[UUID]
) -> None:
    change(scene)
    job_id = ask(scene, canary=str(agents[4]), wait="0s", accept_unknown=True)
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "deliver")
    scene.execute("DELETE FROM agents WHERE id = :id", id=agents[4])
    job = go(scene, job_id)
    assert (job.status, job.result["agents_gone"], job.result["agents_unknown"]) == ("succeeded", 1, 5)
    assert states(scene, job_id)[1] == {"gone": 1, "unknown": 1}
    nothing = go(scene, ask(scene, canary=str(agents[0])))
    assert (nothing.status, nothing.result["agents_total"]) == ("succeeded", 0)
    change(scene, "Members do not see this.", of="role")
    idle = go(scene, ask(scene, canary=str(agents[0])))
    assert idle.status == "failed"
    assert "nothing would change for" in idle.error
    assert "Lead" in idle.error
    scene.simulator.stop()
    scene.services.clients.close_all()
    scene.execute(
        "UPDATE provisioner.gateway_states SET down_since = now() - interval '1 hour', down_at = NULL"
    )
    away = go(scene, ask(scene))
    assert (away.status, "could not be looked at" in away.error) == ("failed", True), away.error
    assert scene.row("SELECT count(*) AS n FROM provisioner.held_files").n == 0


@on_one_release
def test_a_ring_whose_agents_all_stood_in_for_others_is_passed(scene: Scene, agents: list[UUID]) -> None:
    scene.execute("DELETE FROM agents WHERE id = ANY(:ids)", ids=agents[2:])
    change(scene)
    job_id = ask(scene, wait="0s", accept_unknown=True)
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "deliver")
    scene.execute("DELETE FROM agents WHERE id = :id", id=agents[0])
    job = go(scene, job_id)
    assert (job.status, states(scene, job_id)) == ("succeeded", {1: {"gone": 1, "unknown": 1}})


@on_one_release
def test_a_ring_whose_sync_somebody_cancels_is_not_taken_for_well(scene: Scene, agents: list[UUID]) -> None:
    change(scene)
    job_id = ask(scene, wait="0s", accept_unknown=True)
    child = "SELECT children[1] AS id FROM provisioner.roll_outs"
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "deliver" and bool(scene.row(child).id))
    with scene.engine.begin() as connection:
        cancel(connection, scene.row(child).id)
    go(scene, job_id, until=lambda: scene.job(job_id).reason_code == "paused")
    assert "its sync was cancelled" in scene.job(job_id).error
    assert souls(scene, agents) == {"as of old.": 6}
    with scene.engine.begin() as connection:
        assert roll_outs.resume(connection, job_id)
    job = go(scene, job_id)
    assert (job.status, souls(scene, agents)) == ("succeeded", {"made anew.": 6})


def ended(scene: Scene, job_id: UUID) -> Any:
    scene.serve_until_ended(job_id)
    return scene.job(job_id)


@on_one_release
def test_what_somebody_rolls_back_or_releases_meanwhile(scene: Scene, agents: list[UUID]) -> None:
    change(scene)
    job_id = ask(scene, canary=str(agents[0]), wait="10m", max_failed=1)
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "health")
    whole = scene.ask("rollback_job", gateway_id=scene.fleet.gateway_id, undo_job_id=job_id)
    assert "has not ended, and what it still changes" in ended(scene, whole).error
    # An agent that it has not reached keeps what it had, released or not.
    released = ended(scene, scene.ask("rollback", agent_id=agents[1], release=True))
    assert (released.result["released"], "holds it until" in released.warnings[0]) == (False, True)
    assert scene.sync(include_main=False).result["files_written"] == 0
    # A canary that somebody takes back was not well, and one that is not reached yet is gone.
    for agent in (agents[0], agents[2]):
        assert ended(scene, scene.ask("rollback", agent_id=agent)).status == "succeeded"
    job = go(scene, job_id)
    assert job.status == "failed"
    assert "Ann 0: Somebody has rolled it back meanwhile." in job.error
    again = go(scene, ask(scene, canary=str(agents[1]), wait="0s", accept_unknown=True))
    assert (again.status, again.result["agents_total"]) == ("succeeded", 4)
    assert souls(scene, agents)["made anew."] == 4


@pytest.mark.parametrize("simulator", ["2026.2.12", "2026.3.13"], indirect=True)
def test_a_gateway_restarts_once_a_ring_at_most(scene: Scene, agents: list[UUID]) -> None:
    """Nothing tells of runs on 2026.2.12, which need not be waited for then; on 2026.3.13 histories do, and
    here files alone change."""
    change(scene)
    entries = scene.simulator.release.name == "2026.2.12"
    if entries:
        scene.execute("UPDATE agents SET heartbeat_config = '{\"every\": \"45m\"}' WHERE name <> 'Lead'")
    before = scene.simulator.calls[:]
    job_id = ask(scene, canary="3", probe=True, reset_sessions=not entries, accept_unknown=entries)
    for _ in range(60):
        scene.serve_until_ended(job_id)
        if scene.job(job_id).status not in ("queued", "running"):
            break
    job = scene.job(job_id)
    assert (job.status, job.error) == ("succeeded", None)
    patches = [
        call for call in scene.simulator.calls[len(before) :] if call.method == "config.patch" and call.ok
    ]
    assert (len(patches), len(job.result["rings"])) == (2 if entries else 0, 2)
    assert job.result["restarts"] == ({"workshop": 2} if entries else {})
    assert souls(scene, agents) == {"made anew.": 6}
    assert bool(job.warnings) is entries


@pytest.mark.parametrize("simulator", ["2026.2.12", "2026.3.13"], indirect=True)
def test_where_nothing_tells_of_runs_a_ring_waits_for_somebody_to_look(
    scene: Scene, agents: list[UUID]
) -> None:
    change(scene)
    plan = go(scene, ask(scene, canary="2", dry_run=True, probe=True))
    assert "each ring there waits 10m for somebody to look" in plan.warnings[-1]
    assert "--probe sends nothing" in plan.warnings[-1]
    job_id = ask(scene, canary="2", probe=True)
    go(scene, job_id, until=lambda: any(each.reason for each in rows(scene, job_id)))
    for _ in range(3):
        go(scene, job_id, until=lambda: not scene.messages)
    assert states(scene, job_id) == {1: {"delivered": 2}, 2: {"waiting": 4}}
    assert "nothing tells of runs of 2, which somebody should look at until" in scene.job(job_id).error
    assert souls(scene, agents) == {"made anew.": 2, "as of old.": 4}
    scene.execute("UPDATE provisioner.roll_outs SET wait_until = now()")
    go(scene, job_id, until=lambda: states(scene, job_id)[2]["delivered"] > 0)
    assert states(scene, job_id)[1] == {"healthy": 2}
    with scene.engine.begin() as connection:
        cancel(connection, job_id)
    job = go(scene, job_id)
    assert (job.status, job.result["agents_healthy"], job.result["agents_unknown"]) == ("cancelled", 2, 0)
    short = go(scene, ask(scene, canary="100%", wait="0s"))
    assert (short.status, short.error) == ("succeeded", None)


@on_one_release
def test_the_plan_names_whose_own_text_the_change_touches(scene: Scene, agents: list[UUID]) -> None:
    with scene.engine.connect() as connection:
        workspace = Path(load_agent(connection, agents[0]).workspace)
    (workspace / "SOUL.md").write_text("I am my own.")
    change(scene)
    plan = go(scene, ask(scene, dry_run=True))
    assert plan.result["agents_total"] == 5
    assert plan.warnings == [
        "Ann 0 keeps what it wrote into SOUL.md, which the change touches: --overwrite-file or --keep-file"
        " settles that."
    ]


@on_one_release
def test_a_request_that_cannot_be_served_is_refused(scene: Scene) -> None:
    for wrong in (
        {"canary": "0"},
        {"wait": "soon"},
        {"max_failed": 0},
        {"gateways": [str(scene.fleet.board_id)]},
    ):
        job = go(scene, ask(scene, **wrong))
        assert job.status == "failed"
        assert next(iter(wrong)).removesuffix("s") in job.error
    with pytest.raises(PermanentError, match="has ended before"), scene.engine.begin() as connection:
        cancel(connection, job.id)


@on_one_release
def test_settings_reach_nobody_before_his_ring(scene: Scene, agents: list[UUID]) -> None:
    def profiles() -> Counter[str]:
        document = json.loads(scene.simulator.config_path.read_text())
        entries = document["agents"]["entries"]
        return Counter(
            str(entry.get("tools", {}).get("profile")) for name, entry in entries.items() if name != "main"
        )

    with scene.engine.begin() as connection:
        set_settings(connection, "board", scene.fleet.board_id, {"tools.profile": "coding"}, locked=False)
    job_id = ask(scene)
    go(scene, job_id, until=lambda: scene.job(job_id).phase == "health")
    assert profiles() == {"coding": 1, "None": 5}
    assert scene.sync(include_main=False).result["roster_changes"] == 0
    with scene.engine.begin() as connection:
        cancel(connection, job_id)
    assert go(scene, job_id).status == "cancelled"
    assert scene.sync(include_main=False).result["roster_changes"] == 0
    assert profiles() == {"coding": 1, "None": 5}
    plan = go(scene, ask(scene, dry_run=True))
    assert plan.result["agents_total"] == 5
    again = go(scene, ask(scene, canary="100%", wait="0s", accept_unknown=True))
    assert (again.status, again.error) == ("succeeded", None)
    assert profiles() == {"coding": 6}
    assert scene.row("SELECT count(*) AS n FROM provisioner.held_fields").n == 0
