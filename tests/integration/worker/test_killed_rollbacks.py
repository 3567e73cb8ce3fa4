"""kill -9 at every point of a rollback: another worker ends it, and the agent is what it was (rules.md 51).

One worker is stopped at all points at once, each on a gateway of its own, and killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.acceptance.proxy import Hold, Wanted
from tests.integration.worker.workshop import CARRIER, RELEASES, Place, Workshop, calls

NOTE = "- You never call Ada before nine."
POINTS: Mapping[str, tuple[Callable[[str], Wanted], bool]] = {
    "reading the entry": (lambda _: calls("config.get"), False),
    "before the patch": (lambda _: calls("config.patch"), False),
    "after the patch": (lambda _: calls("config.patch"), True),
    "before a file": (lambda _: calls("agents.files.set", name="SOUL.md"), False),
    "after a file": (lambda _: calls("agents.files.set", name="SOUL.md"), True),
    "before the token": (lambda carrier: calls("agents.files.set", name=carrier), False),
    "after the token": (lambda carrier: calls("agents.files.set", name=carrier), True),
    "reading it back": (lambda carrier: calls("agents.files.get", name=carrier), True),
}
"""The call at which the worker is killed, and whether it still reaches the gateway."""


@dataclass(frozen=True)
class RolledBack:
    """An agent whose rollback was killed, and what it was before it was changed."""

    place: Place
    job_id: UUID
    before: Mapping[str, Any]


def state(place: Place) -> dict[str, Any]:
    """The agent's files, the token's place marked, and the name in its entry."""
    agent = place.fleet.agent_id
    token = place.token(agent)
    names = ("SOUL.md", "IDENTITY.md", CARRIER[place.release])
    files = {name: str(place.file(agent, name)).replace(token, "TOKEN") for name in names}
    shown = place.simulator.config_path.read_text()
    return {**files, "is called Eve": '"Eve"' in shown}


def edit(place: Place) -> None:
    """The agent writes into its SOUL.md."""
    path = place.simulator.workspace(place.record(place.fleet.agent_id).openclaw_id) / "SOUL.md"
    path.write_text(path.read_text().replace("- You are useful", f"{NOTE}\n- You are useful"))


@pytest.fixture(scope="module")
def rolled_back(open_workshop: Callable[[], Workshop]) -> Mapping[tuple[str, str], RolledBack]:
    workshop = open_workshop()
    settings = {"LEASE_S": "2", "WORKER_CONCURRENCY": "40", "RETRY_TIMEOUT_S": "40"}
    worker = workshop.start_worker(**settings)
    places = {(release, name): workshop.place(release) for release in RELEASES for name in POINTS}

    def all_ended(jobs: list[UUID]) -> None:
        for job in jobs:
            ended = workshop.ended(job)
            assert (ended.status, ended.error) == ("succeeded", None)

    all_ended([workshop.send(place.fleet.agent_id, wake=False) for place in places.values()])
    for place in places.values():
        edit(place)
    before = {key: state(place) for key, place in places.items()}
    with workshop.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE agents SET name = 'Eve',"
                " identity_profile = jsonb_build_object('communication_style', 'terse')"
            )
        )
    change: dict[str, Any] = {"rotate_tokens": True, "wake": False}
    agents = [place.fleet.agent_id for place in places.values()]
    all_ended([workshop.ask("update_agent", agent_id=agent, **change) for agent in agents])
    assert all(state(place) != before[key] for key, place in places.items())

    stopped: dict[tuple[str, str], tuple[Hold, UUID]] = {}
    for key, place in places.items():
        wanted, after = POINTS[key[1]]
        hold = place.proxy.hold(wanted(CARRIER[key[0]]), after=after)
        stopped[key] = hold, workshop.ask("rollback", agent_id=place.fleet.agent_id)
    for key, (hold, _) in stopped.items():
        assert hold.reached.wait(60), f"{key} was not reached:\n{worker.log()[-3000:]}"
    worker.kill()
    for (_, name), (hold, _) in stopped.items():
        if POINTS[name][1]:
            hold.release()
        else:
            hold.drop()
    workshop.start_worker(**settings)
    all_ended([job for _, job in stopped.values()])
    return {key: RolledBack(places[key], job, before[key]) for key, (_, job) in stopped.items()}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("release", RELEASES)
def test_the_agent_is_what_it_was_and_stays_so(
    rolled_back: Mapping[tuple[str, str], RolledBack], release: str, name: str
) -> None:
    done = rolled_back[release, name]
    assert state(done.place) == done.before
    with done.place.engine.connect() as connection:
        held = connection.execute(
            text("SELECT name FROM provisioner.held_files WHERE agent_id = :id"),
            {"id": done.place.fleet.agent_id},
        ).scalars()
        assert {"SOUL.md", CARRIER[release]} & set(held)
