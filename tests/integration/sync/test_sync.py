"""What a sync does to each of its agents, and what its result says (rules.md 30-36)."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.gateway.address import GatewayAddress
from worker.jobs.outbox import publish_due
from worker.jobs.store import sync_rows

WRITES = {
    "config.patch",
    "agents.files.set",
    "cron.scratch.set",
    "sessions.reset",
    "agents.delete",
    "chat.send",
}


def counts(job: Any) -> tuple[int, int, int, int]:
    result = job.result
    return (
        result["agents_updated"],
        result["agents_unchanged"],
        result["agents_skipped"],
        result["agents_failed"],
    )


def test_a_sync_that_finds_nothing_to_do_writes_nothing(settled: Scene) -> None:
    before = settled.simulator.config_path.read_bytes()
    with settled.counting() as costs:
        job = settled.sync()
    assert (job.status, job.error) == ("succeeded", None)
    assert counts(job) == (5, 5, 0, 0)
    assert (job.result["main_updated"], job.result["files_written"]) == (True, 0)
    assert (job.agents_total, job.agents_done) == (5, 5)
    assert not WRITES & set(costs.calls)
    assert settled.simulator.config_path.read_bytes() == before


def test_an_unchanged_agent_costs_a_look_and_neither_a_statement_nor_a_message(settled: Scene) -> None:
    with settled.counting() as costs:
        job = settled.sync()
    assert (job.status, job.result["agents_unchanged"]) == ("succeeded", 5)
    newest = settled.simulator.release.name == "2026.9.6"
    listing = "agents.workspace.list" if newest else "agents.files.list"
    per_agent = {listing: 6, **({"cron.scratch.get": 6} if newest else {})}
    assert {name: n for name, n in costs.calls.items() if name != "connect"} == {"config.get": 1, **per_agent}
    # the main agent has a row of its own, as it comes last
    assert costs.messages == {"tasks.sync_gateway": 1, "tasks.sync_agent": 1, "tasks.finish_sync": 1}
    more = [settled.agent(f"More {n}") for n in range(4)]
    settled.provision(*more)
    with settled.counting() as with_more:
        assert settled.sync().result["agents_unchanged"] == 9
    assert with_more.statements == costs.statements
    assert with_more.messages == costs.messages


def test_a_sync_with_nothing_to_do_costs_one_message_and_few_statements(settled: Scene) -> None:
    settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id, include_main=False)
    with settled.counting() as costs:
        settled.one()
    assert not settled.messages
    assert costs.statements <= 11


def test_an_agent_with_something_to_be_written_is_not_looked_at_twice(settled: Scene) -> None:
    settled.execute("UPDATE boards SET objective = 'Something else.' WHERE name = 'Second'")
    with settled.counting() as costs:
        settled.sync()
    newest = settled.simulator.release.name == "2026.9.6"
    assert costs.calls["agents.workspace.list" if newest else "agents.files.list"] == 6 + 2 * (not newest)
    assert costs.messages["tasks.sync_agent"] == 3


def test_a_changed_fact_writes_exactly_the_files_that_hold_it(settled: Scene) -> None:
    settled.execute("UPDATE boards SET objective = 'Something else.' WHERE name = 'Second'")
    job = settled.sync()
    assert (job.status, counts(job)) == ("succeeded", (5, 3, 0, 0))
    written = {
        name: sorted(f for f, did in row.files.items() if did["action"] in ("create", "update"))
        for name, row in settled.rows(job.id).items()
    }
    assert {name for name, files in written.items() if files} == {"Bob 0", "Bob 1"}
    assert job.result["files_written"] == sum(map(len, written.values()))
    assert settled.sync().result["files_written"] == 0


def test_changed_heartbeats_make_one_patch(settled: Scene) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
    with settled.counting() as costs:
        job = settled.sync()
    assert (job.status, counts(job)) == ("succeeded", (5, 0, 0, 0))
    assert (costs.calls["config.patch"], job.result["roster_changes"]) == (1, 6)
    assert settled.sync().result["agents_unchanged"] == 5


@on_one_release
def test_each_fault_is_its_agents_own_and_the_others_are_synced(settled: Scene) -> None:
    settled.execute("UPDATE agents SET soul_template = '{{ nobody }}' WHERE name = 'Ann 0'")
    settled.execute("UPDATE boards SET objective = 'Anew.'")
    gone = settled.row("SELECT * FROM agents WHERE name = 'Ann 1'")
    client = settled.services.clients.client(_address(settled))
    client.call("agents.delete", {"agentId": f"mc-{gone.id}"})
    settled.execute("UPDATE agents SET agent_token_hash = 'pbkdf2_sha256$1$AA$AA' WHERE name = 'Bob 0'")
    job = settled.sync()
    assert job.status == "partial"
    assert counts(job) == (2, 0, 2, 1)
    errors = {error["agent_name"]: error["message"] for error in job.result["errors"]}
    assert set(errors) == {"Ann 0", "Ann 1", "Bob 0"}
    assert "nobody" in errors["Ann 0"]
    assert "rotate_tokens" in errors["Ann 1"]
    assert "rotate_tokens" in errors["Bob 0"]
    rows = settled.rows(job.id)
    assert {name: rows[name].reason_code for name in errors} == {
        "Ann 0": "broken_soul_template",
        "Ann 1": "not_registered",
        "Bob 0": "no_token",
    }
    assert f"mc-{gone.id}" not in settled.simulator.agents()
    assert job.error.startswith("Of 5 agents 1 failed, 2 skipped. ")
    healed = settled.sync(rotate_tokens=True)
    assert counts(healed) == (5, 0, 0, 0), "a refused override keeps no token from being rotated"
    assert any("was left as it is, and the rest was done" in str(said) for said in healed.result["warnings"])
    assert f"mc-{gone.id}" in settled.simulator.agents()
    settled.execute("UPDATE agents SET soul_template = NULL")
    assert (settled.sync().status, counts(settled.sync())) == ("succeeded", (5, 5, 0, 0))


@on_one_release
def test_an_agent_that_was_deleted_or_moved_meanwhile_is_skipped_without_an_error(settled: Scene) -> None:
    elsewhere = settled.fleet.add_board(
        "Elsewhere", gateway_id=settled.fleet.add_gateway("other", "ws://127.0.0.1:9")
    )
    settled.change_boards()
    job_id = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.one()
    settled.execute("DELETE FROM agents WHERE name = 'Ann 0'")
    settled.execute(
        "UPDATE agents SET board_id = :board, gateway_id = :gateway WHERE name = 'Bob 0'",
        board=elsewhere,
        gateway=settled.row("SELECT id FROM gateways WHERE name = 'other'").id,
    )
    settled.serve()
    job, rows = settled.job(job_id), settled.rows(job_id)
    assert (job.status, job.result["errors"], job.result["agents_skipped"]) == ("succeeded", [], 2)
    for name, outcome in (("Ann 0", "deleted"), ("Bob 0", "moved")):
        row = rows[name]
        assert (row.status, row.outcome, row.reason_code) == ("skipped", outcome, f"agent_{outcome}")
        assert row.phase == "deleted", "as older versions read it"


@on_one_release
def test_a_paused_board_is_skipped_without_an_error(settled: Scene) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    board = settled.row("SELECT id FROM boards WHERE name = 'Second'").id

    def say(content: str, seconds: int, is_chat: bool = True) -> None:
        settled.execute(
            "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)"
            " VALUES (:id, :board, :content, :is_chat, :at)",
            id=uuid4(),
            board=board,
            content=content,
            is_chat=is_chat,
            at=now + timedelta(seconds=seconds),
        )

    say("/resume", 0)
    say(" /PAUSE\n", 1)
    say("/resume", 2, is_chat=False)
    say("/pause now", 3)
    job = settled.sync()
    assert (job.status, counts(job), job.result["errors"]) == ("succeeded", (3, 3, 2, 0), [])
    row = settled.rows(job.id)["Bob 0"]
    assert (row.reason, row.reason_code) == ("Its board 'Second' is paused.", "board_paused")
    assert (row.outcome, row.phase) == ("paused", "paused")
    settled.execute("UPDATE board_memory SET content = '/pause' WHERE content = '/resume'")
    assert counts(settled.sync(board_id=board)) == (0, 0, 2, 0)
    say("/Resume", 4)
    assert counts(settled.sync()) == (5, 5, 0, 0)


def test_a_dry_run_promises_what_the_run_then_does(settled: Scene) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}' WHERE name LIKE 'Ann%'""")
    settled.execute("UPDATE boards SET objective = 'Anew.'")
    settled.execute("UPDATE agents SET identity_template = '{{ nobody }}' WHERE name = 'Bob 1'")
    with settled.counting() as costs:
        promised = settled.sync(dry_run=True)
    assert not WRITES & set(costs.calls)
    done = settled.sync()
    told = ("dry_run",)
    assert {k: v for k, v in promised.result.items() if k not in told} == {
        k: v for k, v in done.result.items() if k not in told
    }
    before, after = settled.rows(promised.id), settled.rows(done.id)
    for name, row in before.items():
        assert _actions(row) == _actions(after[name]), name
        assert (row.status, row.reason, row.roster) == (
            after[name].status,
            after[name].reason,
            after[name].roster,
        )
    assert done.result["files_written"] > 0
    assert done.result["roster_changes"] == 2


@on_one_release
def test_a_board_of_another_gateway_and_other_nonsense_is_refused_by_name(settled: Scene) -> None:
    elsewhere = settled.fleet.add_gateway("elsewhere", "ws://127.0.0.1:9")
    board = settled.fleet.add_board("Theirs", gateway_id=elsewhere)
    wrong = {
        "'Theirs'": {"board_id": board},
        "There is no board": {"board_id": uuid4()},
        "user_id": {"user_id": uuid4()},
    }
    for sign, options in wrong.items():
        job = settled.sync(**options)
        assert job.status == "failed"
        assert sign in job.error
        assert not settled.rows(job.id)


@on_one_release
def test_agent_ids_that_name_no_agent_of_the_sync_are_left_out_with_a_warning(scene: Scene) -> None:
    agent, elsewhere = scene.agent("Ann"), scene.agent("Bob", board_id=scene.fleet.add_board("Second"))
    scene.provision(agent)
    nobody = uuid4()
    named = [str(key) for key in (agent, elsewhere, nobody)]
    job = scene.sync(agent_ids=named, board_id=scene.fleet.board_id, include_main=False)
    assert (job.status, job.result["agents_updated"]) == ("succeeded", 1)
    assert job.warnings == [
        f"Left out, for no board of this sync has them (agent_ids): {elsewhere}, {nobody}."
    ]


def test_a_gateway_without_agents_or_main_agent_says_so(scene: Scene) -> None:
    job = scene.sync()
    assert (job.status, job.result["agents_updated"]) == ("failed", 0)
    assert "no main agent" in job.result["errors"][0]["message"]
    assert scene.sync(include_main=False).status == "succeeded"


@on_one_release
def test_a_second_sync_waits_behind_the_first(settled: Scene) -> None:
    first = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    second = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.one()
    settled.one()
    assert (settled.job(first).status, settled.job(second).status) == ("running", "queued")
    settled.serve()
    one, two = settled.job(first), settled.job(second)
    assert (one.status, two.status) == ("succeeded", "succeeded")
    assert one.finished_at <= two.started_at


@on_one_release
def test_no_more_than_a_window_is_begun_at_a_time_and_the_main_agent_comes_last(
    settled: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_rows, "MOST_OPEN_ROWS", 2)
    settled.change_boards()
    job = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.one()
    most, order = 0, []
    while settled.messages:
        most = max(most, sum(name == "tasks.sync_agent" for name, _, _ in settled.messages))
        name, kwargs, _ = settled.messages[0]
        order += [kwargs["agent_id"]] if name == "tasks.sync_agent" else []
        settled.one()
    assert most == 2
    assert settled.job(job).status == "succeeded"
    main = settled.row("SELECT id FROM agents WHERE board_id IS NULL").id
    assert (len(order), order[-1]) == (6, str(main))


@on_one_release
def test_the_agents_status_and_its_sleep_are_left_alone(settled: Scene) -> None:
    settled.execute("UPDATE agents SET status = 'busy'")
    settled.execute("UPDATE boards SET objective = 'Anew.'")
    with settled.counting() as costs:
        assert settled.sync(reset_sessions=True).status == "succeeded"
    assert (costs.calls["chat.send"], costs.calls["sessions.patch"]) == (0, 0)
    assert costs.calls["sessions.reset"] == 6
    assert settled.row("SELECT count(*) FROM agents WHERE status = 'busy'")[0] == 6


def test_force_bootstrap_and_overwrite_reach_every_agent(settled: Scene) -> None:
    job = settled.sync(force_bootstrap=True, overwrite=True)
    for row in settled.rows(job.id).values():
        assert row.files["BOOTSTRAP.md"]["action"] in ("create", "update", "unchanged")
        assert row.files["USER.md"]["action"] == row.files["MEMORY.md"]["action"] == "unchanged"


def _actions(row: Any) -> dict[str, str]:
    return {name: file["action"] for name, file in row.files.items()}


def _address(scene: Scene) -> Any:
    return GatewayAddress(scene.simulator.url, scene.simulator.token)


@on_one_release
@pytest.mark.parametrize("seed", range(2))
def test_messages_that_are_lost_or_come_twice_change_nothing(settled: Scene, seed: int) -> None:
    settled.execute("""UPDATE agents SET heartbeat_config = '{"every": "25m"}'""")
    settled.execute("UPDATE boards SET objective = 'Anew.'")
    job = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.one()
    chance = random.Random(seed)
    for _ in range(200):
        if settled.job(job).status != "running":
            break
        if not settled.messages:
            # A minute later: whatever waits for a message that was lost is due.
            settled.execute(
                "UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL"
            )
            settled.execute("UPDATE provisioner.jobs SET next_attempt_at = now() WHERE status = 'running'")
            settled.execute("UPDATE provisioner.gateway_states SET writer_queued_at = NULL")
            publish_due(settled.engine, settled.send)
        fate = chance.random()
        if fate < 0.3:
            settled.messages.pop(chance.randrange(len(settled.messages)))
        elif fate < 0.5:
            settled.messages.append(chance.choice(settled.messages))
        else:
            settled.one()
    done = settled.job(job)
    assert (done.status, done.error) == ("succeeded", None)
    assert (done.agents_done, done.result["agents_updated"], done.result["main_updated"]) == (5, 5, True)
    assert settled.simulator.config_writes <= 3
    settled.messages.clear()
    assert counts(settled.sync()) == (5, 5, 0, 0)


@on_one_release
def test_whoever_was_in_hand_when_the_gateway_was_given_up_was_not_attempted(settled: Scene) -> None:
    settled.change_boards()
    job_id = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.one()
    settled.simulator.stop()
    down = "now() - interval '11 minutes'"
    settled.execute(
        "INSERT INTO provisioner.gateway_states (gateway_id, down_since, last_failure_at, last_error)"
        f" VALUES (:id, {down}, now(), 'no answer') ON CONFLICT (gateway_id) DO UPDATE"
        f" SET down_since = {down}, last_failure_at = now(), last_error = 'no answer'",
        id=settled.fleet.gateway_id,
    )
    settled.one()
    first = [row for row in settled.rows(job_id).values() if row.attempts or row.started_at is not None]
    assert [row.status for row in first] == ["not_attempted"]
    settled.serve()
    job = settled.job(job_id)
    assert (job.status, job.result["not_attempted"], counts(job)) == ("failed", 5, (0, 0, 0, 0))
    assert job.result["main_updated"] is False
    assert {row.reason_code for row in settled.rows(job_id).values()} == {"gateway_unreachable"}
    assert job.reason_code == "gateway_unreachable"
    assert "The gateway was unreachable for 30 seconds" in job.error
