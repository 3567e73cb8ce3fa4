"""What a job did in all its tries is in its report; a token that was verified is not hashed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.integration.provisioning.fleet import Fleet, agent_row, execute, job_agent, seed_fleet
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.provisioning import credentials
from worker.provisioning.roster_writer import write_roster
from worker.provisioning.services import Services
from worker.provisioning.turn import Ended, take_turn
from worker.provisioning.work import Parked
from worker.simulator import Fault, Simulator
from worker.simulator.faults import Refuse
from worker.workspace.credentials import verify_token

TOKEN = "the-gateways-own-token"
BUSY = Refuse("The server is busy. Please try again in a moment.", retryable=True)


@pytest.fixture(params=["2026.2.12", "2026.9.6"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(request.param, token=TOKEN, state_dir=tmp_path / "gateway", reply="OK") as simulator:
        yield simulator


@pytest.fixture
def changed(engine: Engine, simulator: Simulator, hands: Callable[..., Services]) -> Fleet:
    """One agent that was provisioned, and that got another role, on a board of another name, since."""
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand = hands(retry_inline_s=15)
    assert isinstance(turn(hand, fleet, job := uuid4(), "provision_agent"), Parked)
    write_roster(hand, fleet.gateway_id)
    assert turn(hand, fleet, job, "provision_agent") == Ended("succeeded")
    execute(engine, "UPDATE boards SET name = 'Something else'")
    execute(engine, """UPDATE agents SET identity_profile = '{"role": "Poet"}'""")
    return fleet


def turn(hand: Services, fleet: Fleet, job_id: UUID, kind: str = "update_agent", **options: Any) -> object:
    arguments = {"agent_id": str(fleet.agent_id), "wake": False, **options}
    accept_agent_job(hand.engine, kind, str(job_id), (), arguments)
    return take_turn(hand, job_id, fleet.agent_id)


def actions(engine: Engine, job_id: UUID) -> dict[str, str]:
    return {name: file["action"] for name, file in job_agent(engine, job_id).files.items()}


def test_what_an_earlier_try_wrote_is_in_the_report(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator, sent: Any
) -> None:
    hand, promised, done = hands(), uuid4(), uuid4()
    assert turn(hand, changed, promised, dry_run=True) == Ended("succeeded")
    simulator.faults.order(Fault(BUSY, "agents.files.set", file="AGENTS.md"))
    before = len(simulator.calls)
    assert isinstance(turn(hand, changed, done), Parked)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE status = 'running'")
    publish_due(engine, sent)
    assert turn(hand, changed, done) == Ended("succeeded")
    written = [call.names["name"] for call in simulator.calls[before:] if call.method == "agents.files.set"]
    assert len(written) > len(set(written)), "nothing was to be done in two tries"
    assert list(actions(engine, promised).values()).count("update") > 1
    assert actions(engine, done) == actions(engine, promised)


def test_a_pair_that_was_verified_is_not_hashed_again_though_its_file_is_written_anew(
    changed: Fleet,
    hands: Callable[..., Services],
    engine: Engine,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PBKDF2 is 0.1 s of CPU."""
    hashed: list[str] = []

    def verify(token: str, known: str) -> bool:
        hashed.append(known)
        return verify_token(token, known)

    monkeypatch.setattr(credentials, "verify_token", verify)
    before = agent_row(engine, changed.agent_id).agent_token_hash
    job_id = uuid4()
    assert turn(hands(), changed, job_id) == Ended("succeeded")
    assert actions(engine, job_id)["AGENTS.md"] == "update"
    assert (
        job_agent(engine, job_id).files["TOOLS.md" if on_files(simulator) else "AGENTS.md"]["token"]
        == "reused"
    )
    assert agent_row(engine, changed.agent_id).agent_token_hash == before
    assert hashed == []


def on_files(simulator: Simulator) -> bool:
    """Whether the token has a file of its own, which another name of the board does not change."""
    return simulator.release.name < "2026.8"


def test_what_was_written_is_in_the_report_of_a_job_that_fails(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator
) -> None:
    hand, promised, done = hands(), uuid4(), uuid4()
    assert turn(hand, changed, promised, dry_run=True) == Ended("succeeded")
    refusal = Refuse("no space left on device", code="INVALID_REQUEST")
    simulator.faults.order(Fault(refusal, "agents.files.set", file="AGENTS.md"))
    outcome = turn(hand, changed, done)
    assert isinstance(outcome, Ended)
    assert outcome.status == "failed"
    wanted = {name: action for name, action in actions(engine, promised).items() if action == "update"}
    assert len(wanted) > 1
    assert actions(engine, done) == {name: action for name, action in wanted.items() if name != "AGENTS.md"}
