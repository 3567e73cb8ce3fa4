"""A re-keying that is killed between any two of its steps (rules.md 27). Whoever looks afterwards finds in
the workspace a token that is known, and the next run of any kind settles it.

Half of the killed jobs are taken up by another worker, the others are cancelled, so that they are not what
heals their agents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.rotation_scene import SLOT_FOR_EACH, KilledRotation, Scene, TokenState, subjects_of
from tests.acceptance.rotation_steps import UndisturbedRotation
from tests.acceptance.row_watch import RowWatch
from tests.acceptance.world import World
from worker.workspace.tokens import hash_token, mint_token


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    """A worker with a slot for every victim, and every step of its jobs watched."""
    subjects = subjects_of(world)
    # What the syncs left to write in the roster would be steps too.
    ids = [str(subject.agent_id) for subject in subjects]
    left = world.ended(world.ask("sync_heartbeats", gateway_id=world.fleet.gateway_id, agent_ids=ids))
    assert left["status"] == "succeeded", left["error"]
    world.stop_workers()
    worker = world.start_worker(**SLOT_FOR_EACH)
    watch = RowWatch(world.engine)
    scene = Scene(world, watch, worker, subjects)
    try:
        with watch:
            yield scene
    finally:  # the world serves other tests too, however this one ends
        scene.take_words_back()
        if not any(each.running for each in world.workers):
            world.start_worker()


@pytest.fixture(scope="module")
def undisturbed(scene: Scene) -> UndisturbedRotation:
    return scene.rehearse(scene.subjects[-1])


@dataclass(frozen=True)
class Killed:
    """``taken_up``: a victim for every moment whose job goes on; ``given_up``: again for every moment, and
    some to spare, of jobs that were cancelled."""

    undisturbed: UndisturbedRotation
    taken_up: list[KilledRotation]
    given_up: list[KilledRotation]
    spare: list[KilledRotation]

    @property
    def all(self) -> list[KilledRotation]:
        return [*self.taken_up, *self.given_up, *self.spare]


@pytest.fixture(scope="module")
def killed(scene: Scene, undisturbed: UndisturbedRotation) -> Killed:
    every, once = undisturbed.moments, undisturbed.states
    half_done = [moment for moment in once if undisturbed.carrier_set <= moment.done <= undisturbed.commit]
    victims = scene.kill_at_each(undisturbed, [*every, *once, *half_done])
    spare = len(every) + len(once)
    return Killed(undisturbed, victims[: len(every)], victims[len(every) : spare], victims[spare:])


@dataclass(frozen=True)
class KillOutcomes:
    """What became of the killed jobs, and how their agents stood then."""

    jobs: Mapping[KilledRotation, Mapping[str, Any]]
    token_states: Mapping[KilledRotation, TokenState]


@pytest.fixture(scope="module")
def outcomes(scene: Scene, killed: Killed) -> KillOutcomes:
    scene.cancel([*killed.given_up, *killed.spare])
    scene.let_a_minute_pass()
    scene.world.start_worker()
    rows = scene.ended([victim.job_id for victim in killed.all])
    token_states = scene.token_states([victim.subject for victim in killed.all])
    return KillOutcomes(
        dict(zip(killed.all, rows, strict=True)), dict(zip(killed.all, token_states, strict=True))
    )


def test_a_new_token_is_made_the_agents_after_one_read_back(
    scene: Scene, undisturbed: UndisturbedRotation
) -> None:
    steps = undisturbed.steps[undisturbed.carrier_set : undisturbed.commit + 1]
    assert [str(step) for step in steps] == [
        f"agents.files.set {scene.carrier}",
        f"agents.files.get {scene.carrier} again",
        "hash changed",
    ]


def test_whenever_the_worker_dies_the_token_in_the_workspace_is_known(killed: Killed) -> None:
    for victim in killed.all:
        now, before = victim.at_death, victim.before
        changed = (now.token != before.token, now.hash != before.hash, now.pending is not None)
        assert changed == killed.undisturbed.changes(victim.moment), victim.moment
        assert now.known, victim.moment
        # The agent is locked out between its new token and the commit, and at no other time.
        assert now.lets_in is not killed.undisturbed.half_done(victim.moment), victim.moment


def test_a_killed_rotation_is_taken_up_as_the_one_that_it_is(
    scene: Scene, killed: Killed, outcomes: KillOutcomes
) -> None:
    for victim in killed.taken_up:
        job, now = outcomes.jobs[victim], outcomes.token_states[victim]
        outcome = (job["status"], job["result"] and job["result"]["token"])
        assert outcome == ("succeeded", "rotated"), (victim.moment, job["error"])
        assert now.settled, victim.moment
        assert now.token != victim.before.token, victim.moment
        assert scene.brought(victim.subject) == {now.token}, victim.moment


def test_a_killed_rotation_that_was_cancelled_leaves_all_as_it_was_at_its_death(
    scene: Scene, killed: Killed, outcomes: KillOutcomes
) -> None:
    for victim in [*killed.given_up, *killed.spare]:
        assert outcomes.jobs[victim]["status"] == "cancelled", victim.moment
        assert outcomes.token_states[victim] == victim.at_death, victim.moment
        assert scene.world.agent(victim.agent_id)["status"] == "online", victim.moment


def test_plain_runs_settle_what_a_killed_rotation_left(
    scene: Scene, killed: Killed, outcomes: KillOutcomes
) -> None:
    promises_and_writes_nothing(scene, killed.given_up)
    kinds = dict.fromkeys(killed.given_up, "update_agent")
    kinds |= dict.fromkeys(killed.spare, "provision_agent")
    asked = [
        scene.world.send(victim.agent_id, kind, wake=False, reset_session=False)
        for victim, kind in kinds.items()
    ]
    rows = scene.ended(asked)
    after = scene.token_states([victim.subject for victim in kinds])
    for victim, job, now in zip(kinds, rows, after, strict=True):
        where = f"{job['kind']} after a death {victim.moment}"
        outcome = (job["status"], job["result"] and job["result"]["token"])
        assert outcome == ("succeeded", "reused"), (where, job["error"])
        assert now.settled, where
        assert now.token == victim.at_death.token, where


def promises_and_writes_nothing(scene: Scene, victims: list[KilledRotation]) -> None:
    """A dry run says that the token stays, and writes nothing anywhere."""
    keys = [victim.agent_id for victim in victims]
    before = scene.rows_of(keys)
    scene.world.proxy.forget()
    jobs = scene.ended([scene.world.send(key, "update_agent", dry_run=True, diff=True) for key in keys])
    for victim, job in zip(victims, jobs, strict=True):
        outcome = (job["status"], job["result"] and job["result"]["token"])
        assert outcome == ("succeeded", "reused"), (victim.moment, job["error"])
        assert victim.at_death.token not in str(job), victim.moment
    assert scene.world.proxy.count("agents.files.set", "cron.scratch.set", "config.patch", "chat.send") == 0
    assert scene.rows_of(keys) == before
    assert scene.token_states([victim.subject for victim in victims]) == [v.at_death for v in victims]


def test_a_rotation_begins_with_a_token_that_is_known(scene: Scene, outcomes: KillOutcomes) -> None:
    """What a dead rotation left behind becomes the agent's before another replaces it: else a second death
    would leave a token in the workspace that nobody knows."""
    subject, left_behind = scene.subjects[-1], mint_token()
    scene.leave_behind(subject, left_behind, hash_token(left_behind))
    hold = scene.world.proxy.hold(
        lambda method, params: method == "agents.files.set" and params.get("name") == scene.carrier
    )
    job = scene.world.send(subject.agent_id, "update_agent", rotate_tokens=True, wake=False)
    assert hold.reached.wait(scene.world.timeout_s)
    [meanwhile] = scene.token_states([subject])
    assert meanwhile.token == left_behind
    assert meanwhile.lets_in
    hold.release()
    [row] = scene.ended([job])
    assert (row["status"], row["result"]["token"]) == ("succeeded", "rotated"), row["error"]
    [after] = scene.token_states([subject])
    assert after.settled
    assert after.token != left_behind


def test_a_commit_that_the_database_breaks_off_is_taken_up_with_the_token_that_arrived(
    scene: Scene, outcomes: KillOutcomes
) -> None:
    """The worker lives on, and keeps on record what it wrote: the carrier is as we left it, but its token is
    not the one that was verified last."""
    subject = scene.subjects[0]
    scene.world.proxy.forget()
    gate = scene.watch.shut(subject.agent_id, "hash changed")
    job = scene.world.send(subject.agent_id, "update_agent", rotate_tokens=True, wake=False)
    scene.world.eventually(lambda: gate in scene.watch.blocked_keys(), "it never came to its commit")
    [meanwhile] = scene.token_states([subject])
    assert not meanwhile.lets_in
    scene.watch.break_off()
    [row] = scene.ended([job])
    assert (row["status"], row["result"]["token"]) == ("succeeded", "rotated"), row["error"]
    [after] = scene.token_states([subject])
    assert after.settled
    assert scene.brought(subject) == {after.token} == {meanwhile.token}
