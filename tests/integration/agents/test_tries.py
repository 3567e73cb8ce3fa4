"""What a job did in all its tries is in its report; a token that was verified is not hashed again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import Fleet, agent_row, execute, job, job_agent, one, seed_fleet
from tests.rows import execute_agent_row
from worker.agents import token_choice
from worker.jobs.executor import Ended
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.retry_policy import Snooze
from worker.lab.simulator import Fault, Simulator
from worker.lab.simulator.faults import Refuse
from worker.masking import forget_all
from worker.roster.writer import write_roster
from worker.runtime.services import Services
from worker.workspace.tokens import find_token, hash_token, verify_token

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
    first = uuid4()
    assert isinstance(execute_row(hand, fleet, first, "provision_agent"), Snooze)
    write_roster(hand, fleet.gateway_id)
    assert execute_row(hand, fleet, first, "provision_agent") == Ended("succeeded")
    execute(engine, "UPDATE boards SET name = 'Something else'")
    execute(engine, """UPDATE agents SET identity_profile = '{"role": "Poet"}'""")
    return fleet


def execute_row(
    hand: Services, fleet: Fleet, job_id: UUID, kind: str = "update_agent", **options: Any
) -> object:
    arguments = {"agent_id": str(fleet.agent_id), "wake": False, **options}
    accept_agent_job(hand.engine, kind, str(job_id), (), arguments)
    return execute_agent_row(hand, job_id, fleet.agent_id)


def actions(engine: Engine, job_id: UUID) -> dict[str, str]:
    return {name: file["action"] for name, file in job_agent(engine, job_id).files.items()}


def test_what_an_earlier_try_wrote_is_in_the_report(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator, sent: Any
) -> None:
    hand, promised, done = hands(), uuid4(), uuid4()
    assert execute_row(hand, changed, promised, dry_run=True) == Ended("succeeded")
    simulator.faults.schedule(Fault(BUSY, "agents.files.set", file="AGENTS.md"))
    before = len(simulator.calls)
    assert isinstance(execute_row(hand, changed, done), Snooze)
    execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE status = 'running'")
    publish_due(engine, sent)
    assert execute_row(hand, changed, done) == Ended("succeeded")
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

    monkeypatch.setattr(token_choice, "verify_token", verify)
    before = agent_row(engine, changed.agent_id).agent_token_hash
    job_id = uuid4()
    assert execute_row(hands(), changed, job_id) == Ended("succeeded")
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
    assert execute_row(hand, changed, promised, dry_run=True) == Ended("succeeded")
    refusal = Refuse("no space left on device", code="INVALID_REQUEST")
    simulator.faults.schedule(Fault(refusal, "agents.files.set", file="AGENTS.md"))
    outcome = execute_row(hand, changed, done)
    assert isinstance(outcome, Ended)
    assert outcome.status == "failed"
    wanted = {name: action for name, action in actions(engine, promised).items() if action == "update"}
    assert len(wanted) > 1
    assert actions(engine, done) == {name: action for name, action in wanted.items() if name != "AGENTS.md"}


def test_a_pending_hash_that_replaces_nothing_any_more_is_not_waited_for(
    changed: Fleet, hands: Callable[..., Services], engine: Engine
) -> None:
    """A run died before its commit, and somebody else gave the agent another hash since."""
    hand, live = hands(retry_inline_s=15), agent_row(engine, changed.agent_id).agent_token_hash
    somebodys = hash_token("somebody-elses-token")
    execute(engine, "UPDATE agents SET agent_token_hash = :hash", hash=somebodys)
    execute(
        engine,
        "UPDATE provisioner.agent_credentials"
        " SET pending_hash = :live, replaces_hash = 'what it was', verified_hash = NULL",
        live=live,
    )
    synced = execute_row(hand, changed, uuid4())
    assert isinstance(synced, Ended)
    assert "not the agent's" in str(synced.reason)
    job_id = uuid4()
    assert execute_row(hand, changed, job_id, "provision_agent") == Ended("succeeded")
    assert agent_row(engine, changed.agent_id).agent_token_hash not in (live, somebodys)
    tokens = {file.get("token") for file in job_agent(engine, job_id).files.values()} - {None}
    assert tokens == {"rotated"}


def test_a_token_that_an_earlier_try_minted_is_reported_as_minted(
    engine: Engine, simulator: Simulator, hands: Callable[..., Services], sent: Any
) -> None:
    fleet = seed_fleet(engine, url=simulator.url, token=TOKEN)
    hand, job_id = hands(), uuid4()
    assert isinstance(execute_row(hand, fleet, job_id, "provision_agent"), Snooze)
    write_roster(hand, fleet.gateway_id)
    carrier = "TOOLS.md" if on_files(simulator) else "AGENTS.md"
    simulator.faults.schedule(Fault(BUSY, "agents.files.get", file=carrier))
    outcome: object = None
    for _ in range(40):  # 2026.9.6 makes the heartbeat's automation in its own time
        outcome = execute_row(hand, fleet, job_id, "provision_agent")
        if not isinstance(outcome, Snooze):
            break
        execute(engine, "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE status = 'running'")
        publish_due(engine, sent)
        time.sleep(0.1)
    assert outcome == Ended("succeeded")
    files = job_agent(engine, job_id).files
    assert (files[carrier]["token"], files[carrier]["action"]) == ("minted", "create")


def test_a_file_that_was_not_read_back_is_looked_at_again(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator
) -> None:
    hand = hands()
    if on_files(simulator):
        execute(engine, "UPDATE gateways SET workspace_root = workspace_root || '/'")
        execute(engine, "DELETE FROM provisioner.agent_files WHERE name = 'TOOLS.md'")
        (simulator.workspace(_place(simulator)) / "TOOLS.md").write_text(_with_note(simulator))
    carrier = "TOOLS.md" if on_files(simulator) else "AGENTS.md"
    refusal = Refuse("no such device", code="INVALID_REQUEST")
    simulator.faults.schedule(Fault(refusal, "agents.files.get", file=carrier, nth=2))
    outcome = execute_row(hand, changed, uuid4())
    assert isinstance(outcome, Ended)
    assert outcome.status == "failed"
    before = len(simulator.calls)
    assert execute_row(hand, changed, uuid4()) == Ended("succeeded")
    read = [call.names.get("name") for call in simulator.calls[before:] if call.method == "agents.files.get"]
    assert carrier in read


def test_what_an_agent_wrote_and_postgres_cannot_hold_stands_in_the_diff_all_the_same(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator
) -> None:
    (simulator.workspace(_place(simulator)) / "SOUL.md").write_text("I am \x00 odd.\n")
    promised = uuid4()
    assert execute_row(hands(), changed, promised, dry_run=True, diff=True, overwrite=True) == Ended(
        "succeeded"
    )
    assert "-I am \ufffd odd." in job_agent(engine, promised).files["SOUL.md"]["diff"]


def test_an_agent_that_is_moved_while_its_job_waits_goes_along_or_is_told(
    changed: Fleet, hands: Callable[..., Services], engine: Engine
) -> None:
    hand, begun, waiting = hands(), uuid4(), uuid4()
    execute(engine, """UPDATE agents SET heartbeat_config = '{"every": "47m"}'""")
    assert isinstance(execute_row(hand, changed, begun, "provision_agent"), Snooze)
    arguments = {"agent_id": str(changed.agent_id), "wake": False}
    accept_agent_job(engine, "update_agent", str(waiting), (), arguments)
    other = seed_fleet(engine)
    execute(engine, "UPDATE boards SET gateway_id = :id", id=other.gateway_id)
    execute(engine, "UPDATE agents SET gateway_id = :id", id=other.gateway_id)
    execute(engine, "UPDATE provisioner.job_agents SET published_at = now()")
    outcome = execute_row(hand, changed, begun, "provision_agent")
    assert isinstance(outcome, Ended)
    assert "meanwhile: ask again." in str(outcome.reason)
    assert isinstance(execute_row(hand, changed, waiting), Snooze)  # the other gateway is not there
    assert job(engine, waiting).gateway_id == other.gateway_id


def test_a_delete_whose_agent_is_moved_meanwhile_takes_it_off_its_new_place_too(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator
) -> None:
    hand, job_id = hands(), uuid4()
    assert isinstance(execute_row(hand, changed, job_id, "delete_agent"), Snooze)
    other = seed_fleet(engine)
    execute(engine, "UPDATE boards SET gateway_id = :id", id=other.gateway_id)
    execute(engine, "UPDATE agents SET gateway_id = :id", id=other.gateway_id)
    write_roster(hand, changed.gateway_id)
    assert _places(simulator) == []
    assert isinstance(execute_row(hand, changed, job_id, "delete_agent"), Snooze)
    open_at = (
        "SELECT gateway_id FROM provisioner.roster_intents WHERE applied_at IS NULL AND gateway_id = :id"
    )
    assert one(engine, open_at, id=other.gateway_id).gateway_id == other.gateway_id


def _places(simulator: Simulator) -> list[str]:
    return [name for name in simulator.agents() if name.startswith("mc-")]


def _place(simulator: Simulator) -> str:
    [place] = _places(simulator)
    return place


def _with_note(simulator: Simulator) -> str:
    return (simulator.workspace(_place(simulator)) / "TOOLS.md").read_text() + "\nA note.\n"


def test_a_token_that_the_agent_noted_elsewhere_is_in_no_diff(
    changed: Fleet, hands: Callable[..., Services], engine: Engine, simulator: Simulator
) -> None:
    execute(engine, "UPDATE boards SET name = 'Launch'")
    assert execute_row(hands(), changed, uuid4()) == Ended("succeeded")
    folder = simulator.workspace(_place(simulator))
    carrier = folder / ("TOOLS.md" if on_files(simulator) else "AGENTS.md")
    token = find_token(carrier.read_text(), section=not on_files(simulator))
    assert token is not None
    (folder / "SOUL.md").write_text(f"my word is {token}\n")
    (folder / "IDENTITY.md").write_text(f"I am x{token[:9]}\n{token[9:]}\nor {quote_all(token)}\n")
    forget_all()  # another worker's process has never had it in hand
    plain, shown = uuid4(), uuid4()
    before = len(simulator.calls)
    assert execute_row(hands(), changed, plain, dry_run=True) == Ended("succeeded")
    read = [call.names.get("name") for call in simulator.calls[before:] if call.method == "agents.files.get"]
    assert carrier.name not in read  # it is unchanged, and nobody asked for a diff
    both = ["SOUL.md", "IDENTITY.md"]
    outcome = execute_row(hands(), changed, shown, dry_run=True, diff=True, overwrite_files=both)
    assert outcome == Ended("succeeded")
    files = job_agent(engine, shown).files
    assert files[carrier.name]["action"] == "unchanged"
    assert "-my word is <masked>" in files["SOUL.md"]["diff"]
    assert "-I am x<masked>\n-or <masked>" in files["IDENTITY.md"]["diff"]
    kept = json.dumps([files, job(engine, shown).result])
    assert token not in kept
    assert token[:9] not in kept


def quote_all(token: str) -> str:
    return "".join(f"%{ord(letter):02X}" for letter in token)
