"""kill -9 at every point of a provision: another worker ends the job, nobody is locked out or woken twice.

One worker is stopped at all points at once, each on a gateway of its own, and killed; each test looks at one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from tests.acceptance.proxy import Hold, Proxy
from tests.integration.agents.fleet import agent_row, one
from tests.integration.worker.workshop import CARRIER, RELEASES, Place, Workshop, calls

RECOVERY_S = 60.0


@dataclass(frozen=True)
class Point:
    """Where a worker is stopped. ``phase``: what the row says by then; ``crashes``: claims that ended without
    a word; ``arrives``: whether the held call still reaches the gateway."""

    hold: Callable[[Proxy, str], Hold]
    phase: str
    crashes: int = 1
    arrives: bool = False


POINTS: Mapping[str, Point] = {
    "intent": Point(lambda proxy, _: proxy.hold(calls("connect")), "intent"),
    "before the patch": Point(lambda proxy, _: proxy.hold(calls("config.patch")), "roster", crashes=0),
    "after the patch": Point(
        lambda proxy, _: proxy.hold(calls("config.patch"), after=True), "roster", crashes=0, arrives=True
    ),
    "files": Point(lambda proxy, _: proxy.hold(calls("agents.files.set", name="SOUL.md")), "files"),
    "before the token": Point(
        lambda proxy, carrier: proxy.hold(calls("agents.files.set", name=carrier)), "credentials"
    ),
    "after the token": Point(
        lambda proxy, carrier: proxy.hold(calls("agents.files.set", name=carrier), after=True),
        "credentials",
        arrives=True,
    ),
    "read back": Point(
        lambda proxy, carrier: proxy.hold(calls("agents.files.get", name=carrier)), "credentials"
    ),
    "before the wake": Point(lambda proxy, _: proxy.hold(calls("chat.send")), "wake"),
    "after the wake": Point(
        lambda proxy, _: proxy.hold(calls("chat.send"), after=True), "wake", arrives=True
    ),
}


@dataclass(frozen=True)
class Killed:
    """One job whose worker was killed. ``phase``: at that moment; ``took_s``: since the next one started."""

    place: Place
    job_id: UUID
    phase: str | None
    row: Row[Any]
    took_s: float

    @property
    def agent_id(self) -> UUID:
        return self.place.fleet.agent_id

    @property
    def wakes(self) -> int:
        key = self.place.record(self.agent_id).session_key
        return self.place.count("chat.send", sessionKey=key)


@pytest.fixture(scope="module")
def killed(open_workshop: Callable[[], Workshop]) -> Mapping[tuple[str, str], Killed]:
    """Every job, by release and point, after its worker was killed there and another one came."""
    workshop = open_workshop()
    settings = {"LEASE_S": "2", "WORKER_CONCURRENCY": "40", "RETRY_TIMEOUT_S": "40"}
    worker = workshop.start_worker(**settings)
    stopped: dict[tuple[str, str], tuple[Place, Hold, UUID]] = {}
    # A worker waits 30 s for an answer, and 15 s only for a connection: who is kept from one comes last.
    for at_the_door in (False, True):
        for release in RELEASES:
            for name, point in POINTS.items():
                if (point.phase == "intent") is at_the_door:
                    place = workshop.place(release)
                    hold = point.hold(place.proxy, CARRIER[release])
                    stopped[release, name] = place, hold, workshop.send(place.fleet.agent_id)
        for (release, name), (_, hold, _) in stopped.items():
            assert hold.reached.wait(60), f"{release} never came to {name}:\n{worker.log()[-3000:]}"
    phases = {key: workshop.job(job_id).agent_phase for key, (_, _, job_id) in stopped.items()}
    worker.kill()
    for (_, name), (_, hold, _) in stopped.items():
        if POINTS[name].arrives:
            hold.release()
        else:
            hold.drop()
    began = time.monotonic()
    workshop.start_worker(**settings)
    outcome = {}
    for key, (place, _, job_id) in stopped.items():
        row = workshop.ended(job_id, RECOVERY_S)
        outcome[key] = Killed(place, job_id, phases[key], row, time.monotonic() - began)
    return outcome


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", POINTS)
def test_the_job_goes_on_where_it_was_and_ends_well(
    killed: Mapping[tuple[str, str], Killed], release: str, name: str
) -> None:
    job, point = killed[release, name], POINTS[name]
    assert job.phase == point.phase
    assert (job.row.status, job.row.error) == ("succeeded", None)
    assert job.row.attempts == point.crashes
    assert job.took_s < RECOVERY_S
    assert agent_row(job.place.engine, job.agent_id).status == "online"


@pytest.mark.parametrize("name", POINTS)
def test_token_and_hash_match_and_nothing_is_pending(
    killed: Mapping[tuple[str, str], Killed], release: str, name: str
) -> None:
    job = killed[release, name]
    assert job.place.token(job.agent_id)
    assert job.place.differences(job.agent_id) == []
    credentials = one(
        job.place.engine,
        "SELECT * FROM provisioner.agent_credentials WHERE agent_id = :id",
        id=job.agent_id,
    )
    assert (credentials.pending_hash, credentials.replaces_hash) == (None, None)
    assert credentials.verified_hash == agent_row(job.place.engine, job.agent_id).agent_token_hash


@pytest.mark.parametrize("name", [name for name, point in POINTS.items() if point.phase != "wake"])
def test_an_agent_whose_worker_died_before_the_wake_is_woken_once(
    killed: Mapping[tuple[str, str], Killed], release: str, name: str
) -> None:
    job = killed[release, name]
    assert (job.wakes, job.row.result["woken"], job.row.warnings) == (1, True, [])


@pytest.mark.parametrize("name", ["before the wake", "after the wake"])
def test_where_the_release_tells_an_agent_is_woken_exactly_once(
    killed: Mapping[tuple[str, str], Killed], name: str
) -> None:
    job = killed["2026.9.6", name]
    assert (job.wakes, job.row.result["woken"], job.row.warnings) == (1, True, [])


@pytest.mark.parametrize(("name", "wakes"), [("before the wake", 0), ("after the wake", 1)])
def test_where_the_release_does_not_tell_nobody_is_woken_twice_and_a_warning_says_so(
    killed: Mapping[tuple[str, str], Killed], name: str, wakes: int
) -> None:
    job = killed["2026.2.12", name]
    assert (job.wakes, job.row.result["woken"]) == (wakes, False)
    assert len(job.row.warnings) == 1
    assert "Wake the agent by hand if it is silent." in job.row.warnings[0]


def test_a_token_that_reached_the_workspace_is_kept(killed: Mapping[tuple[str, str], Killed]) -> None:
    """The pending hash of the dead worker matches what it wrote: no second re-keying (rules.md 27)."""
    for release in RELEASES:
        for name in ("after the token", "read back"):
            job = killed[release, name]
            carrier = CARRIER[release]
            assert job.row.result["token"] == "minted"  # by the job, in the dead worker's hand
            openclaw_id = job.place.record(job.agent_id).openclaw_id
            assert job.place.count("agents.files.set", agentId=openclaw_id, name=carrier) == 1
