"""The nightly sync of fifty agents (on a simulator, 20) on five boards with their leads, and of the gateway's
main agent."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.acceptance.world import Settled, World
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.retrying import retry
from worker.sync.result import drifted

WRITES = {
    "config.patch",
    "agents.files.set",
    "cron.scratch.set",
    "sessions.reset",
    "chat.send",
    "agents.delete",
}
TOLD_APART = ("dry_run", "files_unchanged")
"""What a plan and its run need not share: 2026.9.6 deletes BOOTSTRAP.md before an agent's first run, whenever
that begins, and a heartbeat may begin one at any time."""


@dataclass
class LargeFleet:
    """A world whose gateway has the five boards alone, and its main agent; ``templates``: of the worker's
    own, in front of the shipped ones."""

    world: World
    templates: Path
    agents: list[Settled]

    @property
    def size(self) -> int:
        return len(self.agents)

    def sync(self, **options: Any) -> Mapping[str, Any]:
        """A sync from its request to its end."""
        self.world.proxy.forget()
        return self.world.ended(self.ask(**options), 240)

    def ask(self, **options: Any) -> UUID:
        return self.world.ask("sync_gateway", gateway_id=self.world.fleet.gateway_id, **options)

    def promised_and_done(self, **options: Any) -> Mapping[str, Any]:
        """A dry run, and then the run: the same, row by row. Another dry run finds nothing more to do."""
        promised = self.sync(dry_run=True, **options)
        assert not WRITES & set(self.calls()), self.calls()
        done = self.sync(**options)
        assert _plain(promised["result"]) == _plain(done["result"])
        before, after = self.rows(promised["id"]), self.rows(done["id"])
        for name, row in before.items():
            same = after[name]
            assert _files(row) == _files(same), name
            assert [row[key] for key in SAME] == [same[key] for key in SAME], name
        calls = self.world.proxy.frames
        left = self.sync(dry_run=True, **options)
        assert (left["status"], drifted(left["result"])) == (done["status"], False), left["result"]
        self.world.proxy.frames = calls
        return done

    def calls(self) -> Counter[str]:
        """What went through the proxy since the last sync began."""
        return Counter(method for method, _ in self.world.proxy.calls if method != "connect")

    def rows(self, job_id: UUID) -> dict[str, Mapping[str, Any]]:
        with self.world.engine.connect() as connection:
            found = connection.execute(
                text("SELECT * FROM provisioner.job_agents WHERE job_id = :id"), {"id": job_id}
            )
            return {row.agent_name: row._asdict() for row in found}

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.world.engine.begin() as connection:
            connection.execute(text(statement), parameters)


SAME = ("status", "reason", "roster", "first_provision")


@pytest.fixture(scope="module")
def large_fleet(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LargeFleet]:
    agents = world.many[: world.on_boards]
    templates = tmp_path_factory.mktemp("templates")
    (templates / "shared").mkdir()
    main = world.ended(world.ask("provision_gateway_main", gateway_id=world.fleet.gateway_id, wake=False))
    assert main["status"] == "succeeded", main["error"]
    made = LargeFleet(world, templates, agents)
    made.execute("UPDATE boards SET gateway_id = NULL WHERE name NOT LIKE 'Board _'")
    _restart_workers(made)
    yield made
    world.stop_workers()
    world.workers.clear()
    world.start_worker()
    left = made.sync()
    made.execute("UPDATE boards SET gateway_id = :id WHERE gateway_id IS NULL", id=world.fleet.gateway_id)
    assert left["status"] == "succeeded", "the batch is not left as it was found"


def test_a_gateway_that_is_killed_in_the_middle_and_comes_back_ends_well(large_fleet: LargeFleet) -> None:
    """Comes first: after the edits of test_many_writers 2026.9.6 would restart while the others run."""
    world = large_fleet.world
    job = _sync_to_the_middle(large_fleet, "{{ agent_name }} has seen a crash.\n")
    world.process.kill()
    assert world.job(job)["agents_done"] < large_fleet.size  # type: ignore[index]
    time.sleep(1.0)
    world.process.start()
    done = world.ended(job, 300)
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert (done["result"]["agents_updated"], done["agents_done"]) == (large_fleet.size, large_fleet.size)
    souls = world.contents([agent.openclaw_id for agent in large_fleet.agents], "SOUL.md")
    assert all(soul.endswith("has seen a crash.") for soul in souls)
    _restart_workers(large_fleet)


def test_straight_after_provisioning_nothing_is_written(
    large_fleet: LargeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    world = large_fleet.world
    first = large_fleet.sync()  # what the gateway itself touched since is taken on record
    assert (first["status"], first["result"]["agents_updated"]) == ("succeeded", large_fleet.size), first
    files, config = _files_on_disk(world), _digest(world.config_path)
    done = large_fleet.promised_and_done()
    result = done["result"]
    assert (done["status"], done["error"], result["main_updated"]) == ("succeeded", None, True)
    assert (result["agents_updated"], result["agents_unchanged"]) == (large_fleet.size, large_fleet.size)
    assert (result["files_written"], result["roster_changes"], drifted(result)) == (0, 0, False)
    assert not WRITES & set(large_fleet.calls())
    assert _digest(world.config_path) == config
    now = _files_on_disk(world)
    assert now.items() <= files.items()
    assert {Path(path).name for path in files.keys() - now.keys()} <= {"BOOTSTRAP.md"}
    assert "agents.files.get" not in large_fleet.calls()
    statements = _statements(large_fleet)
    took = (done["finished_at"] - done["started_at"]).total_seconds()
    with capsys.disabled():
        calls, synced = sum(large_fleet.calls().values()), large_fleet.size + 1
        print(
            f"\n{world.release}: sync of {large_fleet.size} unchanged agents: {took:.2f} s,"
            f" {calls / synced:.2f} calls and {statements / synced:.1f} statements an agent"
        )


def test_a_changed_template_writes_that_file_of_every_agent(large_fleet: LargeFleet) -> None:
    (large_fleet.templates / "shared" / "SOUL.md.j2").write_text("{{ agent_name }} is calm tonight.\n")
    _restart_workers(large_fleet)
    done = large_fleet.promised_and_done()
    assert (done["status"], done["result"]["files_written"]) == ("succeeded", large_fleet.size + 1)
    assert set(large_fleet.calls()) & WRITES == {"agents.files.set"}
    for row in large_fleet.rows(done["id"]).values():
        assert [name for name, did in _files(row).items() if did in ("create", "update")] == ["SOUL.md"]
    souls = large_fleet.world.contents([agent.openclaw_id for agent in large_fleet.agents], "SOUL.md")
    assert all(soul.endswith("is calm tonight.") for soul in souls)
    assert len(set(souls)) == large_fleet.size


def test_a_heartbeat_changed_on_all_is_one_patch(large_fleet: LargeFleet) -> None:
    large_fleet.execute(
        """UPDATE agents SET heartbeat_config = '{"every": "77m"}' WHERE board_id IS NOT NULL"""
    )
    done = large_fleet.promised_and_done()
    assert (done["status"], done["result"]["roster_changes"]) == ("succeeded", large_fleet.size)
    assert large_fleet.calls()["config.patch"] == 1
    roster = large_fleet.world.roster()
    assert {roster[agent.openclaw_id]["heartbeat"]["every"] for agent in large_fleet.agents} == {"77m"}


def test_every_fault_is_its_own_agents_and_all_others_are_synced(large_fleet: LargeFleet) -> None:
    world = large_fleet.world
    boards = _boards(large_fleet)
    broken, tokenless, wrong, deleted = boards[0][1:4], boards[1][1:3], boards[2][1], boards[3][1]
    paused = boards[4]
    for agent in broken:
        world.set_agent(agent.agent_id, soul_template="{{ agent_name }}\n{% for x in y %}")
    for agent in tokenless:
        _rewrite_token(world, agent, lambda line: "")
    _rewrite_token(world, wrong, lambda line: "AUTH_TOKEN=somebody-elses-token")
    client = world.direct()
    client.call("agents.delete", {"agentId": deleted.openclaw_id, "deleteFiles": False}, deadline_s=60)
    client.close()
    large_fleet.execute(
        "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)"
        " SELECT gen_random_uuid(), board_id, ' /Pause ', true, now() FROM agents WHERE id = :id",
        id=paused[0].agent_id,
    )
    (large_fleet.templates / "shared" / "SELF.md.j2").unlink(missing_ok=True)
    (large_fleet.templates / "shared" / "SOUL.md.j2").write_text("{{ agent_name }} is calm today.\n")
    done = large_fleet.promised_and_done()
    result = done["result"]
    assert done["status"] == "partial"
    errors = {error["agent_id"]: error["message"] for error in result["errors"]}
    assert set(errors) == {str(agent.agent_id) for agent in (*broken, *tokenless, wrong, deleted)}
    for agent in broken:
        assert re.search(r"SOUL\.md override.*line 2", errors[str(agent.agent_id)])
    for agent in (*tokenless, wrong, deleted):
        assert "rotate_tokens" in errors[str(agent.agent_id)]
    assert (result["agents_failed"], result["agents_skipped"]) == (3, 2 + 1 + 1 + len(paused))
    assert result["agents_updated"] == large_fleet.size - 3 - 4 - len(paused)
    assert deleted.openclaw_id not in world.roster()
    left = {agent.agent_id for agent in (*broken, *tokenless, wrong, deleted, *paused)}
    synced = [agent for agent in large_fleet.agents if agent.agent_id not in left]
    souls = world.contents([agent.openclaw_id for agent in synced], "SOUL.md")
    assert all(soul.endswith("is calm today.") for soul in souls)
    paused_souls = world.contents([agent.openclaw_id for agent in paused], "SOUL.md")
    assert all(soul.endswith("is calm tonight.") for soul in paused_souls)

    large_fleet.execute("UPDATE agents SET soul_template = NULL")
    large_fleet.execute("DELETE FROM board_memory")
    healed = large_fleet.sync(rotate_tokens=True, board_id=_board_of(large_fleet, wrong))
    assert healed["status"] == "succeeded", healed["error"]
    for board in {_board_of(large_fleet, agent) for agent in (*tokenless, deleted)}:
        assert large_fleet.sync(rotate_tokens=True, board_id=board)["status"] == "succeeded"
    assert large_fleet.sync()["result"]["agents_updated"] == large_fleet.size


def test_a_gateway_that_stops_for_good_leaves_right_counts(large_fleet: LargeFleet) -> None:
    world = large_fleet.world
    job = _sync_to_the_middle(large_fleet, "{{ agent_name }} was here.\n", RETRY_TIMEOUT_S="12")
    world.process.kill()
    done = world.ended(job, 120)
    world.process.start()
    result = done["result"]
    assert (done["status"], result["main_updated"]) == ("partial", False)
    assert "The gateway was unreachable for 12 seconds" in done["error"]
    statuses = Counter(row["status"] for row in large_fleet.rows(job).values())
    assert set(statuses) <= {"succeeded", "failed", "not_attempted"}
    assert result["agents_updated"] == statuses["succeeded"]
    assert result["not_attempted"] + result["agents_failed"] + result["agents_updated"] == large_fleet.size
    assert result["not_attempted"] > 0
    souls = world.contents([agent.openclaw_id for agent in large_fleet.agents], "SOUL.md")
    written = sum(soul.endswith("was here.") for soul in souls)
    assert statuses["succeeded"] <= written <= statuses["succeeded"] + result["agents_failed"] + 2
    _restart_workers(large_fleet)
    again = large_fleet.sync()
    assert (again["status"], again["result"]["agents_updated"]) == ("succeeded", large_fleet.size), again[
        "error"
    ]


def test_a_run_that_is_cancelled_in_the_middle_is_finished_by_its_retry(large_fleet: LargeFleet) -> None:
    world = large_fleet.world
    job = _sync_to_the_middle(large_fleet, "{{ agent_name }} was interrupted.\n")
    with world.engine.begin() as connection:
        assert cancel(connection, job) is False
    done = world.ended(job)
    statuses = {row["agent_id"]: row["status"] for row in large_fleet.rows(job).values()}
    assert set(statuses.values()) == {"succeeded", "cancelled"}
    finished = {agent_id for agent_id, status in statuses.items() if status == "succeeded"}
    assert done["error"] == f"Cancelled on request: {len(finished)} of {large_fleet.size} agents were done."
    assert (done["status"], done["result"]["agents_updated"]) == ("cancelled", len(finished))
    souls = world.contents([agent.openclaw_id for agent in large_fleet.agents], "SOUL.md")
    for agent, soul in zip(large_fleet.agents, souls, strict=True):
        assert soul.endswith("was interrupted.") is (agent.agent_id in finished)
    _restart_workers(large_fleet)
    with world.engine.begin() as connection:
        rest = retry(connection, job, requested_by=None)
    again = world.ended(rest)
    assert (again["status"], again["result"]["agents_updated"]) == (
        "succeeded",
        large_fleet.size - len(finished),
    )
    assert {row["agent_id"] for row in large_fleet.rows(rest).values()} == set(statuses) - finished
    souls = world.contents([agent.openclaw_id for agent in large_fleet.agents], "SOUL.md")
    assert all(soul.endswith("was interrupted.") for soul in souls)


SLOWLY = {"WORKER_CONCURRENCY": "1"}
"""One agent at a time, so that there is a middle to be met."""


def _sync_to_the_middle(large_fleet: LargeFleet, soul: str, **settings: str) -> UUID:
    """Change SOUL.md's template, ask for a sync, and return its id once five agents are done."""
    world = large_fleet.world
    (large_fleet.templates / "shared" / "SOUL.md.j2").write_text(soul)
    _restart_workers(large_fleet, 1, **settings, **SLOWLY)
    job = large_fleet.ask()
    world.eventually(lambda: (world.job(job) or {}).get("agents_done", 0) >= 5, "it never got to five agents")
    return job


def _restart_workers(large_fleet: LargeFleet, number: int | None = None, **settings: str) -> None:
    """A new template counts from a worker's start. Two workers, where a gateway is worth them."""
    world = large_fleet.world
    world.stop_workers()
    world.workers.clear()
    for _ in range(number or (2 if world.real else 1)):
        world.start_worker(TEMPLATES_DIR=str(large_fleet.templates), **settings)


def _boards(large_fleet: LargeFleet) -> list[list[Settled]]:
    """The agents by board, each board's lead first."""
    by_board: dict[UUID, list[Settled]] = {}
    for agent in large_fleet.agents:
        by_board.setdefault(_board_of(large_fleet, agent), []).append(agent)
    return list(by_board.values())


def _board_of(large_fleet: LargeFleet, agent: Settled) -> UUID:
    return UUID(str(large_fleet.world.agent(agent.agent_id)["board_id"]))


def _rewrite_token(world: World, agent: Settled, change: Any) -> None:
    files = world.files(agent.openclaw_id)
    carrier = files.dialect.credentials_in
    content = world.wait_for_answer(lambda: files.read([carrier]))[carrier].content or ""
    found = re.search(r"^AUTH_TOKEN=.*$", content, re.MULTILINE)
    assert found is not None
    text = content.replace(found[0], change(found[0]))
    world.wait_for_answer(lambda: files.write({carrier: text}, lambda name, written: None))
    files.client.close()


def _statements(large_fleet: LargeFleet) -> int:
    """SQL statements of one more sync that finds nothing to do, as Postgres logs them: transactions' own,
    and what the clock and this test look for at all times, aside."""
    world = large_fleet.world
    with world.engine.connect() as connection:
        name, pid = connection.execute(text("SELECT current_database(), pg_backend_pid()")).one()
    log = Path(f"/proc/{pid}/fd/2").resolve()
    large_fleet.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
    _restart_workers(large_fleet)
    began = log.stat().st_size
    large_fleet.sync()
    written = log.read_bytes()[began:].decode()
    large_fleet.execute(f"ALTER DATABASE {name} RESET log_statement")
    _, *logged = re.split(r"LOG:  (?:statement|execute [^:]*): ", written)
    return sum(_counts(statement.strip()) for statement in logged)


def _counts(statement: str) -> bool:
    apart = ("BEGIN", "COMMIT", "ROLLBACK", "SELECT 1", ";", "SELECT * FROM provisioner.jobs")
    return not statement.startswith(apart) and "WITH due AS" not in statement


def _plain(result: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in result.items() if key not in TOLD_APART}, sort_keys=True)


def _files(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: file["action"] for name, file in row["files"].items() if name != "BOOTSTRAP.md"}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files_on_disk(world: World) -> dict[str, int]:
    """When each file of each workspace was last written, in ns; the simulator keeps them elsewhere."""
    roots = [world.folder / "agents", world.config_path.parent]
    found = {
        str(path): path.stat().st_mtime_ns
        for root in roots
        for path in root.rglob("*.md")
        if path.is_file() and "node_modules" not in path.parts
    }
    assert found
    return found
