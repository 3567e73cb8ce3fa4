"""sync and its plan, with a worker process at the other end of the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker import standalone
from worker.cli.job_summary import read_jobs
from worker.lab.simulator import Simulator

GATEWAY = "gateway of Ada"


@pytest.fixture
def crew(staffed: Provisioner, engine: Engine) -> Provisioner:
    """Ada, Ann and Abe provisioned on Ada's gateway, and its main agent."""
    with engine.begin() as connection:
        board = connection.execute(text("SELECT id FROM boards WHERE name = 'Board Ada'")).scalar_one()
        for name in ("Ann", "Abe"):
            standalone.add_agent(connection, standalone.NewAgent(name, board))
    for name in ("Ada", "Ann", "Abe"):
        staffed.run("provision", name, "--no-wake", "--no-wait")
    staffed.json("main", GATEWAY, "--no-wake")
    for name in ("Ada", "Ann", "Abe"):
        staffed.json("update", name, "--no-wake")
    return staffed


@pytest.fixture
def change(engine: Engine) -> Callable[[str, str, str], None]:
    def set_column(name: str, column: str, value: str) -> None:
        with engine.begin() as connection:
            parameters = {"name": name, "value": value}
            connection.execute(text(f"UPDATE agents SET {column} = :value WHERE name = :name"), parameters)

    return set_column


def test_a_sync_is_planned_done_and_then_has_nothing_to_do(
    crew: Provisioner, change: Callable[[str, str, str], None]
) -> None:
    idle = crew.run("sync", GATEWAY, "--dry-run")
    assert (idle.exit_code, idle.stdout.splitlines()[-1]) == (
        0,
        f"{GATEWAY}: nothing to do: 3 agents and the main agent as their templates want them.",
    )
    change("Ann", "soul_template", "You are Ann, in new words.")
    change("Abe", "heartbeat_config", '{"every": "25m"}')
    plan = crew.run("sync", GATEWAY, "--dry-run", "--diff")
    assert plan.exit_code == 1
    assert "2 of 3 would change, 1 needs nothing" in plan.stdout
    assert "SOUL.md (templates or facts)" in plan.stdout
    assert 'heartbeat.every = "25m"' in plan.stdout
    assert "+You are Ann, in new words." in plan.stdout
    promised = crew.json("sync", GATEWAY, "--dry-run", code=1)
    done = crew.json("sync", GATEWAY)
    for key in ("agents_updated", "agents_unchanged", "files_written", "roster_changes"):
        assert promised["result"][key] == done["result"][key]
    assert (done["result"]["files_written"], done["result"]["roster_changes"]) == (1, 1)
    shown = crew.run("job", done["id"])
    assert shown.exit_code == 0
    assert "Ann" in shown.stdout
    assert "AGENTS.md" not in shown.stdout  # what was not touched
    assert crew.run("sync", GATEWAY, "--dry-run").exit_code == 0


NOTED = """
password: correct-horse-battery
Authorization: Bearer 0wls-of-the-night
  curl -H 'authorization: bearer wom8ats-by-day' http://127.0.0.1:9
passphrase: |
  all the kings horses
Scribbled below it."""
NOTED_SECRETS = ("correct-horse", "0wls-of", "wom8ats", "kings horses")


def test_a_page_keeps_to_80_columns_and_shows_no_token(
    crew: Provisioner, simulator: Simulator, engine: Engine
) -> None:
    found = [file for file in simulator.state_dir.rglob("AGENTS.md") if "AUTH_TOKEN=" in file.read_text()]
    tokens = []
    for file in found:
        tokens.append(file.read_text().split("AUTH_TOKEN=")[1].split()[0].strip("`'\""))
        file.write_text(file.read_text().replace(tokens[-1], f"{tokens[-1]}{NOTED}"))
    result = crew.run("sync", GATEWAY, "--rotate-tokens", "--dry-run", "--diff")
    assert result.exit_code == 1
    page = result.stdout.split("\nplan for", 1)[1].split("\nAda: ")[0]
    assert all(len(line) <= 80 for line in page.splitlines())
    assert result.stdout.count("-Scribbled below it.") == len(tokens) == 4
    assert "<masked>" in result.stdout
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT array_agg(row_to_json(r)) FROM provisioner.job_agents r"))
        shown = result.output + str(kept.scalar_one())
    assert [secret for secret in (*tokens, *NOTED_SECRETS) if secret in shown] == []


def test_what_failed_is_named_with_the_way_on_and_the_others_are_synced(
    crew: Provisioner, change: Callable[[str, str, str], None], engine: Engine
) -> None:
    change("Ann", "soul_template", "{{ nobody }}")
    result = crew.run("sync", GATEWAY)
    assert result.exit_code == 1
    assert "2 of 3 updated (2 needed nothing), 1 failed" in result.stdout
    assert "nobody" in result.stdout
    assert "provisioner retry " in result.stdout
    (job,) = (job for job in crew.json("jobs", "--status", "partial"))
    with engine.connect() as connection:
        tally = read_jobs(connection, [UUID(job["id"])], whole=False)[0].tally
    assert (tally.total, tally.done, tally.unchanged, tally.changed, tally.failed) == (3, 3, 2, 0, 1)
    assert [failure.name for failure in tally.failures] == ["Ann"]


def test_a_gateway_without_a_main_agent_is_synced_with_no_main(staffed: Provisioner) -> None:
    staffed.json("provision", "Ada", "--no-wake")
    missing = staffed.run("sync", GATEWAY)
    assert missing.exit_code == 1
    assert f'provisioner main "{GATEWAY}"' in missing.stdout
    assert staffed.run("sync", GATEWAY, "--no-main").exit_code == 0


def test_a_gateway_that_is_away_leaves_all_not_attempted_and_points_to_doctor(staffed: Provisioner) -> None:
    away = staffed.run("sync", "gateway of Cid", "--no-main", "--dry-run")
    assert away.exit_code == 1
    page = " ".join(away.stdout.split())
    assert "0 of 1 would change, 0 need nothing, 1 not attempted" in page
    assert "unreachable for 3 seconds" in page
    assert 'next provisioner doctor "gateway of Cid" then: provisioner retry ' in page
    assert "do it" not in page


def test_the_options_stand_in_the_row_and_a_board_is_found_by_its_name(
    fleet: Provisioner, engine: Engine
) -> None:
    options = ["--no-main", "--reset-sessions", "--rotate-tokens", "--force-bootstrap", "--overwrite"]
    job = fleet.json("sync", "g", "--board", "launch", *options, "--no-wait", "--request", "r1")
    assert (
        fleet.json("sync", "g", "--board", "launch", *options, "--no-wait", "--request", "r1")["id"]
        == (job["id"])
    )
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM provisioner.jobs")).one()
    assert (row.kind, str(row.board_id), row.requested_by) == ("sync_gateway", job["board_id"], "cli")
    assert {name: row.options[name] for name in ("include_main", "overwrite", "dry_run", "diff")} == {
        "include_main": False,
        "overwrite": True,
        "dry_run": False,
        "diff": False,
    }
    assert row.options["rotate_tokens"] is row.options["reset_sessions"] is True


def test_wrong_use_is_said_before_anything_is_asked_for(fleet: Provisioner) -> None:
    assert "There is no gateway 'x'" in fleet.refused("sync", "x")
    assert "There is no board 'x'" in fleet.refused("sync", "g", "--board", "x")
    assert fleet.json("jobs") == []


def test_a_roll_out_is_planned_shown_and_named_by_its_agents(
    crew: Provisioner, change: Callable[[str, str, str], None]
) -> None:
    assert "For a roll-out alone: --wait, --probe." in crew.refused(
        "sync", GATEWAY, "--wait", "5m", "--probe"
    )
    assert "further gateways" in crew.refused("sync", GATEWAY, GATEWAY)
    for unclear in ("0%", "0", "100000", "Ada,"):
        assert "say how many, from 1" in crew.refused("sync", GATEWAY, "--canary", unclear)
    assert "There is no agent 'Nobody'" in crew.refused("sync", GATEWAY, "--canary", "Ada,Nobody")
    assert "max_failed must be" in crew.refused("sync", GATEWAY, "--canary", "1", "--max-failed", "none")
    job = crew.json("jobs", "--limit", "1")[0]["id"]
    assert "is no roll-out" in crew.refused("rollout", "pause", job)
    for name in ("Ada", "Ann"):
        change(name, "soul_template", "You are {{ agent_name }}, in new words.")
    plan = crew.run("sync", GATEWAY, "--canary", "1", "--dry-run")
    assert plan.exit_code == 1
    assert "2 agents would change, in 2 rings" in plan.stdout
    assert "none: no gateway restarts for this" in plan.stdout
    assert f'provisioner sync "{GATEWAY}" --canary 1' in plan.stdout
    stranger = crew.run("sync", GATEWAY, "--canary", "Ada,Cid", "--dry-run")
    assert "Canary: Cid cannot be in the first ring" in " ".join(stranger.stdout.split())
    assert "nothing changes" not in stranger.stdout
    options = ("--no-main", "--wait", "0s", "--accept-unknown")
    done = crew.run("sync", GATEWAY, "--canary", "Ann", *options)
    assert done.exit_code == 0, done.output
    assert "2: 2 unknown" in done.stdout
    assert "rollout" in crew.run("jobs").stdout
    assert crew.json("sync", GATEWAY, "--dry-run")["result"]["files_written"] == 0
    change("Ann", "soul_template", "You are {{ agent_name }}, once more.")
    begun = crew.json("sync", GATEWAY, "--no-main", "--canary", "1", "--no-wait")["id"]
    until = time.monotonic() + 30
    while "waiting for runs" not in crew.run("rollout", "status", begun).stdout:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert crew.run("rollout", "abort", begun).exit_code == 0
    assert "1: 1 with the change, not judged" in crew.run("rollout", "status", begun).stdout
    for name in ("Ada", "Ann"):
        change(name, "soul_template", "You are {{ agent_name }}, in wrong words.")
    given = ("--no-main", "--canary", "2", "--wait", "0s", "--rollback-on-failure")
    stopped = crew.run("sync", GATEWAY, *given)
    assert stopped.exit_code == 1, stopped.output
    assert "2 agents rolled back, and held so until --release." in stopped.stdout
    whole = next(job["id"] for job in crew.json("jobs") if job["kind"] == "rollback_job")
    assert "2 agents rolled back" in crew.run("job", whole).stdout
    for name in ("Ada", "Ann"):
        change(name, "soul_template", "You are {{ agent_name }}, and wrong again.")
        assert crew.run("rollback", name, "--release").exit_code == 0
    back = crew.json("sync", GATEWAY, *given, code=1)["rollbacks"]
    assert [each["status"] for each in back] == ["succeeded", "succeeded"]
