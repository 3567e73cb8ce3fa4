"""A template that is wrong for three agents of a fleet stops in its first ring, and goes back to the byte
(rules.md 51, 56, 57), by the commands that an operator types.

Of eight agents; with ``--fifty`` of fifty, and then also what takes longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.acceptance.world import World
from tests.conformance.expected import EXPECTED
from tests.gateways.stub_model import StubModel
from tests.integration.cli.conftest import Provisioner
from tests.worker_process import BeatProcess
from worker.lab.simulator import Simulator
from worker.workspace.tokens import find_token

FEW, FIFTY, WRONG_FOR = 8, 50, 3
READABLE = EXPECTED["2026.2.12"].listed_files
"""The files that every release lets one read, or did (gateways.md 3)."""
WRONG = "Answer with nothing but songs."
OLD = "# Soul\n\nYou are {{ agent_name }}.\n\nBe brief.\n"
NEW = f"""# Soul

You are {{{{ agent_name }}}}.

{{% if identity_role == "Auditor" %}}{WRONG}{{% else %}}Be brief, and give reasons.{{% endif %}}
"""
NOTE = "You never call Ada before nine."


@dataclass
class Fleet:
    """Agents on a board of their own, their SOUL.md from a template of that board."""

    world: World
    operator: Provisioner
    board: str
    agents: Mapping[str, UUID]
    workspaces: Mapping[str, Path]
    wrong: frozenset[str]

    def files(self) -> dict[str, dict[str, bytes | None]]:
        """The readable files of all agents as they are on disk, the place of the token marked."""
        return {name: _read(folder) for name, folder in self.workspaces.items()}

    def does(self, *arguments: str) -> None:
        """What an operator types, and that succeeds."""
        done = self.operator.run(*arguments)
        assert done.exit_code == 0, done.output

    def promote(self, body: str) -> None:
        source = self.world.folder / "soul.md"
        source.write_text(body)
        self.does("template", "set", "SOUL.md", str(source), "--board", self.board)
        self.does("template", "promote", "SOUL.md", "--board", self.board)

    def follow_again(self, job_id: str) -> None:
        """End what was rolled back for a job, and the template for which it was."""
        self.does("rollback", "--job", job_id, "--release")
        self.does("template", "revert", "SOUL.md", "--board", self.board)
        assert self.sync()["result"]["files_written"] == 0

    def sync(self, *options: str, code: int = 0) -> Any:
        gateway = str(self.world.fleet.gateway_id)
        return self.operator.json("sync", gateway, "--board", self.board, "--no-main", *options, code=code)

    def statuses(self, job_id: str) -> dict[str, str]:
        job = self.operator.json("rollout", "status", job_id)
        return {each["name"]: each["state"] for each in (job["rollout"] or {}).get("agents", ())}


def _read(folder: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for name in READABLE:
        path = folder / name
        body = path.read_bytes() if path.is_file() else None
        if body is not None and name in ("TOOLS.md", "AGENTS.md"):
            token = find_token(body.decode(), section=name == "AGENTS.md")
            body = body.replace(token.encode(), b"TOKEN") if token else body
        found[name] = body
    return found


class Sighting:
    """Notes which agents ever have a text in their SOUL.md, by looking at the disk all the time."""

    def __init__(self, fleet: Fleet, text: str) -> None:
        self.seen: set[str] = set()
        self._fleet, self._text = fleet, text.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            for name, folder in self._fleet.workspaces.items():
                if name not in self.seen and self._text in _bytes(folder / "SOUL.md"):
                    self.seen.add(name)

    def __enter__(self) -> Sighting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="package")
def rolled(world: World, pytestconfig: pytest.Config) -> Fleet:
    """The fleet, provisioned and awake, so that BOOTSTRAP.md is gone where a first run takes it."""
    size = FIFTY if pytestconfig.getoption("--fifty") else FEW
    board = world.fleet.add_board("Rolled")
    names = [f"Roller {n:02}" for n in range(size)]
    wrong = frozenset(names[2 : 2 + WRONG_FOR])
    agents = {
        name: world.fleet.add_agent(
            name, board_id=board, identity_profile={"role": "Auditor"} if name in wrong else None
        )
        for name in names
    }
    operator = Provisioner(world.settings["DATABASE_URL"], Path(world.settings["GATEWAY_DEVICE_KEY"]))
    jobs = [world.send(agent, wake=world.model is not None) for agent in agents.values()]
    rows = [world.ended(job, 600) for job in jobs]
    assert {row["status"] for row in rows} == {"succeeded"}, [row["error"] for row in rows]
    roster = world.roster()
    places = dict(zip(agents, (str(row["result"]["openclaw_id"]) for row in rows), strict=True))
    folders = {name: _folder(world, place, roster[place]) for name, place in places.items()}
    fleet = Fleet(world, operator, str(board), agents, folders, wrong)
    fleet.promote(OLD)
    assert fleet.sync()["status"] == "succeeded"
    for name in names[-2:]:
        soul = folders[name] / "SOUL.md"
        soul.write_text(soul.read_text().replace("# Soul\n", f"# Soul\n\n{NOTE}\n"))
        (folders[name] / "MEMORY.md").write_text("Months of notes.\n")
    if world.model is not None:
        world.eventually(lambda: _awake(fleet), "not all agents have run", 900)
    return fleet


def _folder(world: World, openclaw_id: str, entry: Mapping[str, Any]) -> Path:
    if isinstance(world.process, Simulator):
        return world.process.workspace(openclaw_id)
    return Path(str(entry["workspace"]).replace("~", str(world.config_path.parent / "home")))


def _awake(fleet: Fleet) -> bool:
    return not any((folder / "BOOTSTRAP.md").exists() for folder in fleet.workspaces.values())


@contextmanager
def refusing(model: StubModel | None) -> Iterator[None]:
    """The model, where there is one, fails for every agent that has the wrong text."""
    if model is not None:
        model.refuses = WRONG
    yield
    if model is not None:
        model.refuses = None


def _sent_it(world: World) -> set[str]:
    """The agents that were sent the wrong text, by the calls of the workers."""
    return {
        str(params["agentId"])
        for method, params in world.proxy.calls
        if method == "agents.files.set" and WRONG in str(params.get("content"))
    }


def test_a_template_wrong_for_three_stops_in_the_first_ring_and_goes_back(rolled: Fleet) -> None:
    world = rolled.world
    before = rolled.files()
    rolled.promote(NEW)
    world.proxy.forget()
    began = time.monotonic()
    with Sighting(rolled, WRONG) as sighting:
        job = _stopped_in_its_first_ring(rolled)
        stopped_s, calls = time.monotonic() - began, len(world.proxy.calls)
        states, result = rolled.statuses(job["id"]), job["result"]
        assert (result["agents_total"], result["agents_reached"]) == (len(rolled.agents), 3)
        assert result["agents_left"] == len(rolled.agents) - 3
        reached = {name for name, state in states.items() if state != "waiting"}
        assert sighting.seen == reached & rolled.wrong
        assert len(sighting.seen) == len(_sent_it(world)) == 1
        assert {name for name, files in rolled.files().items() if files != before[name]} == reached
        began = time.monotonic()
        rolled.does("rollback", "--job", job["id"])
        back_s = time.monotonic() - began
        assert rolled.files() == before
        assert rolled.sync()["result"]["files_written"] == 0
    assert len(sighting.seen) == 1
    rolled.follow_again(job["id"])
    print(
        f"\n{world.release}: of {len(rolled.agents)} agents one saw it; stopped after {stopped_s:.0f} s and"
        f" {calls} calls, back after {back_s:.0f} s more: {job['error']}"
    )


def _stopping(world: World) -> tuple[str, ...]:
    """The options of a roll-out that stops in its first ring: because of the runs of its agents, or, where
    nothing tells of them, because somebody ends it."""
    if world.model is not None:
        anew = ("--reset-sessions",) if world.release < "2026.8" else ()
        return ("--canary", "3", "--wait", "3m", "--probe", *anew)
    return ("--canary", "3", "--wait", "1s" if world.release >= "2026.8" else "5m")


def _stopped_in_its_first_ring(rolled: Fleet) -> Any:
    """The job of such a roll-out, once it has ended."""
    world = rolled.world
    if world.model is not None or world.release >= "2026.8":
        with refusing(world.model):
            return rolled.sync(*_stopping(world), code=1)
    job_id = rolled.sync(*_stopping(world), "--no-wait")["id"]
    _abort_once_looked_at(rolled, job_id)
    return rolled.operator.json("job", job_id, code=1)


def _abort_once_looked_at(rolled: Fleet, job_id: str) -> None:
    world = rolled.world
    world.eventually(
        lambda: "which somebody should look at" in world.says(job_id), lambda: world.says(job_id)
    )
    assert any(WRONG.encode() in _bytes(folder / "SOUL.md") for folder in rolled.workspaces.values())
    rolled.does("rollout", "abort", job_id)


@pytest.mark.openclaw
@pytest.mark.fifty
def test_a_template_that_cannot_be_rendered_for_three_reaches_none_of_them(rolled: Fleet) -> None:
    world = rolled.world
    before = rolled.files()
    rolled.promote(OLD.replace("Be brief.", "{{ identity_custom_instructions }}\n" * 20))
    for name in rolled.wrong:
        profile = {"role": "Auditor", "custom_instructions": "x" * 20_000}
        world.set_agent(rolled.agents[name], identity_profile=profile)
    options = ("--canary", "3", "--wait", "1s", "--rollback-on-failure")
    job = rolled.sync(*options, code=1)
    assert (job["status"], job["result"]["agents_failed"] >= 1) == ("failed", True), job["error"]
    assert "Stopped in ring 1" in job["error"]
    assert {each["status"] for each in job["rollbacks"]} == {"succeeded"}
    assert rolled.files() == before
    for name in rolled.wrong:
        world.set_agent(rolled.agents[name], identity_profile={"role": "Auditor"})
    rolled.follow_again(job["id"])


@pytest.mark.openclaw
@pytest.mark.fifty
def test_the_same_with_its_worker_killed_at_every_step(rolled: Fleet) -> None:
    world = rolled.world
    before = rolled.files()
    rolled.promote(NEW)
    began = time.monotonic()
    with Sighting(rolled, WRONG) as sighting, refusing(world.model):
        job_id = rolled.sync(*_stopping(world), "--no-wait")["id"]
        killed = _kill_at_every_step(rolled, job_id)
        states = rolled.statuses(job_id)
        hold = world.proxy.hold(lambda method, _: method == "agents.files.set", after=True)
        back = rolled.operator.json("rollback", "--job", job_id, "--no-wait")["id"]
        assert hold.reached.wait(60)
        _kill(world)
        hold.release()
        world.eventually(lambda: _all_back(world, back), lambda: world.says(back))
        took_s = time.monotonic() - began
    assert rolled.files() == before
    assert {name for name, state in states.items() if state != "waiting"} & rolled.wrong == sighting.seen
    assert len(sighting.seen) == 1
    assert killed >= {"look", "deliver", "check", "health"}
    rolled.follow_again(job_id)
    print(
        f"\n{world.release}: {len(killed) + 1} workers killed of {len(rolled.agents)} agents, {took_s:.0f} s"
    )


@pytest.mark.openclaw
@pytest.mark.fifty
def test_a_schedule_that_only_looks_finds_who_differs(rolled: Fleet, tmp_path: Path) -> None:
    world, operator = rolled.world, rolled.operator
    before = rolled.files()
    rolled.promote(NEW)
    gateway = str(world.fleet.gateway_id)
    given = ("--every", "1h", "--board", rolled.board, "--no-main", "--dry-run")
    schedule = operator.json("schedule", "add", gateway, *given)["id"]
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE provisioner.sync_schedules SET next_run_at = now()"))
    beat = BeatProcess(tmp_path / "beat.log", world.settings)
    drifted = world.eventually(lambda: _whole(operator.json("drift", gateway), rolled), "no drift", 60)
    beat.stop()
    assert {each["agent"] for each in drifted} == {*rolled.agents}
    assert all("SOUL.md" in each["what"][0] for each in drifted), drifted
    assert rolled.files() == before
    rolled.does("schedule", "remove", schedule)
    rolled.does("template", "revert", "SOUL.md", "--board", rolled.board)
    assert rolled.sync("--dry-run")["result"]["files_written"] == 0
    assert operator.json("drift", gateway) == []


def _whole(found: list[Any], rolled: Fleet) -> list[Any] | None:
    return found if len(found) == len(rolled.agents) else None


@pytest.mark.openclaw
@pytest.mark.fifty
def test_a_roll_out_over_a_second_gateway_is_paused_and_goes_on(rolled: Fleet, tmp_path: Path) -> None:
    world, operator = rolled.world, rolled.operator
    before = rolled.files()
    with Simulator("2026.9.6", token="east", state_dir=tmp_path / "east", reply="OK") as east:
        gateway = world.fleet.add_gateway("east", east.url, "east", str(tmp_path / "agents"))
        board = world.fleet.add_board("East", gateway_id=gateway)
        more = [world.fleet.add_agent(f"Easter {n}", board_id=board, gateway_id=gateway) for n in range(4)]
        world.provision(*more, wake=False)
        source = tmp_path / "soul.md"
        source.write_text(OLD.replace("Be brief.", "Be brief, here and there."))
        for each in (rolled.board, str(board)):
            rolled.does("template", "set", "SOUL.md", str(source), "--board", each)
            rolled.does("template", "promote", "SOUL.md", "--board", each)
        wait = "3m" if world.release >= "2026.3" else "2s"
        anew = ("--reset-sessions",) if "2026.2.26" <= world.release < "2026.8" else ()
        options = ("--no-main", "--canary", "3", "--probe", "--wait", wait, *anew)
        world.proxy.forget()
        asked = operator.json("sync", str(world.fleet.gateway_id), "east", *options, "--no-wait")
        world.eventually(lambda: rolled.statuses(asked["id"]) or None, "no plan")
        rolled.does("rollout", "pause", asked["id"])
        world.eventually(lambda: "paused" in world.says(asked["id"]), lambda: world.says(asked["id"]))
        reached = sum(state != "waiting" for state in rolled.statuses(asked["id"]).values())
        assert 0 <= reached < len(rolled.agents) + 4
        rolled.does("rollout", "resume", asked["id"])
        job = world.ended(UUID(asked["id"]), 900)
        assert (job["status"], job["error"]) == ("succeeded", None), job
        assert job["result"]["agents_healthy"] == len(rolled.agents) + 4
        assert (job["result"]["restarts"], world.proxy.count("config.patch")) == ({}, 0)
        print(f"\n{world.release} and a simulator: {[ring['agents'] for ring in job['result']['rings']]}")
        rolled.does("rollback", "--job", asked["id"])
        assert rolled.files() == before
        rolled.follow_again(asked["id"])


def _kill(world: World) -> None:
    world.workers[-1].kill()
    world.start_worker()


def _kill_at_every_step(rolled: Fleet, job_id: str) -> set[str]:
    """Kill the worker at each new step of the roll-out, and as it ends; returns the steps."""
    world, killed = rolled.world, set[str]()
    while "ended" not in killed:
        step = world.eventually(lambda: _new_step(world, job_id, killed), lambda: world.says(job_id))
        killed.add(step)
        _kill(world)
        if step == "health" and world.model is None and world.release < "2026.8":
            _abort_once_looked_at(rolled, job_id)
    return killed


def _new_step(world: World, job_id: str, known: set[str]) -> str | None:
    with world.engine.connect() as connection:
        step = str(connection.execute(_STEP, {"id": job_id}).scalar_one_or_none() or "")
    return step if step and step not in known else None


def _all_back(world: World, job_id: str) -> bool:
    with world.engine.connect() as connection:
        statuses = set(connection.execute(_ROLLBACKS, {"id": job_id}).scalars())
    assert statuses <= {"queued", "running", "succeeded"}
    return statuses == {"succeeded"}


_STEP = text("""
    SELECT CASE WHEN j.status NOT IN ('queued', 'running') THEN 'ended'
        WHEN EXISTS (SELECT FROM provisioner.jobs c JOIN provisioner.job_agents a ON a.job_id = c.id
            WHERE c.id = ANY(o.children) AND c.status = 'running' AND a.status = 'running')
        THEN j.phase || ', at work' ELSE j.phase END
    FROM provisioner.jobs j JOIN provisioner.roll_outs o ON o.job_id = j.id WHERE j.id = :id
""")
_ROLLBACKS = text("SELECT status FROM provisioner.jobs WHERE parent_job_id = :id")
