"""update and its plan, delete: with a worker process at the other end of the database."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker.lab.simulator import Simulator


@pytest.fixture
def alive(staffed: Provisioner) -> Provisioner:
    """With Ada provisioned."""
    staffed.json("provision", "Ada", "--no-wake")
    return staffed


def change(engine: Engine, **columns: str) -> None:
    """Set columns of Ada's row."""
    with engine.begin() as connection:
        for name, value in columns.items():
            connection.execute(
                text(f"UPDATE agents SET {name} = :value WHERE name = 'Ada'"), {"value": value}
            )


def id_of(provisioner: Provisioner, name: str) -> UUID:
    return next(UUID(line["id"]) for line in provisioner.json("agent", "list") if line["name"] == name)


def test_a_plan_with_nothing_to_do_is_one_line(alive: Provisioner) -> None:
    quiet = alive.run("update", "Ada", "--dry-run", "--no-wake")
    waking = alive.run("update", "Ada", "--dry-run")
    assert (quiet.exit_code, waking.exit_code) == (0, 0)
    assert quiet.stdout.splitlines()[-1] == "Ada: nothing to do."
    assert waking.stdout.splitlines()[-1] == "Ada: nothing to do: an update would only wake it."


def test_a_plan_says_what_would_change_and_who_changed_it_and_the_run_does_just_that(
    alive: Provisioner, engine: Engine, simulator: Simulator
) -> None:
    workspace = simulator.workspace(f"mc-{id_of(alive, 'Ada')}")
    (workspace / "USER.md").write_text("My human likes tea.")
    before = simulator.config_path.read_bytes()
    change(engine, soul_template="You are Ada, in new words.", heartbeat_config='{"every": "20m"}')
    shown = alive.run("update", "Ada", "--dry-run", "--diff", "--no-wake")
    plan = alive.json("update", "Ada", "--dry-run", "--no-wake")
    assert shown.exit_code == 0, shown.output
    page = shown.stdout.split("\nSOUL.md\n")[0]
    lines = {line.split()[0]: line for line in page.splitlines() if line.strip()}
    assert "update" in lines["SOUL.md"]
    assert "templates or facts changed" in lines["SOUL.md"]
    assert "preserved" in lines["USER.md"]
    assert "the agent's own; changed on the gateway" in lines["USER.md"]
    assert 'heartbeat.every = "20m"' in shown.stdout
    assert "+You are Ada, in new words." in shown.stdout
    assert "provisioner update Ada --no-wake" in lines["do"]
    assert simulator.config_path.read_bytes() == before
    assert "new words" not in (workspace / "SOUL.md").read_text()
    done = alive.json("update", "Ada", "--no-wake")
    actions = [
        {name: file["action"] for name, file in job["result"]["files"].items()} for job in (plan, done)
    ]
    assert actions[0] == actions[1]
    assert (workspace / "SOUL.md").read_text() == "You are Ada, in new words."


def test_a_plan_keeps_to_80_columns_and_shows_no_token(alive: Provisioner, simulator: Simulator) -> None:
    folder = simulator.workspace(f"mc-{id_of(alive, 'Ada')}")
    token = (folder / "AGENTS.md").read_text().split("AUTH_TOKEN=")[1].split()[0].strip("`'\"")
    agents_md = (folder / "AGENTS.md").read_text()
    (folder / "AGENTS.md").write_text(agents_md.replace(token, f"{token}\nScribbled below it."))
    plain = alive.run("update", "Ada", "--dry-run", "--rotate-tokens")
    with_diffs = alive.run("update", "Ada", "--dry-run", "--rotate-tokens", "--diff")
    assert "a new one" in plain.stdout
    assert "--rotate-tokens" in plain.stdout
    assert all(len(line) <= 80 for line in plain.stdout.splitlines()[3:])
    assert "<masked>" in with_diffs.stdout
    assert len(token) > 30
    assert token not in with_diffs.output


def test_the_page_of_a_dry_run_is_its_plan_later_too(alive: Provisioner) -> None:
    job = alive.json("update", "Ada", "--dry-run", "--no-wake")
    assert alive.run("job", job["id"]).stdout == "Ada: nothing to do.\n"


def test_an_update_without_a_token_points_to_the_way_out(alive: Provisioner, simulator: Simulator) -> None:
    (simulator.workspace(f"mc-{id_of(alive, 'Ada')}") / "AGENTS.md").write_text("mine")
    failed = alive.run("update", "Ada")
    assert failed.exit_code == 1
    assert "next   provisioner update Ada --rotate-tokens" in failed.stdout
    healed = alive.json("update", "Ada", "--rotate-tokens", "--no-wake")
    assert healed["result"]["token"] == "rotated"


def test_a_deleted_agent_is_gone_and_deleting_it_again_succeeds(
    alive: Provisioner, simulator: Simulator
) -> None:
    key = id_of(alive, "Ada")
    folder = simulator.workspace(f"mc-{key}")
    result = alive.run("delete", "Ada")
    assert result.exit_code == 0, result.output
    assert "from the gateway" in result.stdout
    assert f"mc-{key}" not in simulator.agents()
    assert not folder.exists()
    assert "Ada" not in {line["name"] for line in alive.json("agent", "list")}
    again = alive.json("delete", str(key), "--gateway", "gateway of Ada")
    assert (again["status"], again["result"]["removed"]) == ("succeeded", False)


def test_what_is_to_be_kept_is_kept(alive: Provisioner, simulator: Simulator) -> None:
    key = id_of(alive, "Ada")
    folder = simulator.workspace(f"mc-{key}")
    alive.json("delete", "Ada", "--keep-files", "--keep-row", "--yes")
    assert f"mc-{key}" not in simulator.agents()
    assert (folder / "AGENTS.md").exists()
    assert id_of(alive, "Ada") == key


def test_an_agent_that_nobody_knows_is_not_taken_for_an_id(fleet: Provisioner) -> None:
    assert "There is no agent 'Zoe'" in fleet.refused("delete", "Zoe")


def test_heartbeats_of_a_gateway_are_brought_to_its_rows_in_one_change(
    alive: Provisioner, engine: Engine, simulator: Simulator
) -> None:
    key = f"mc-{id_of(alive, 'Ada')}"
    change(engine, heartbeat_config='{"every": "25m"}')
    writes = simulator.config_writes
    shown = alive.run("heartbeats", "gateway of Ada")
    assert shown.exit_code == 0, shown.output
    assert "1 of 1 done" in shown.stdout
    assert simulator.agents()[key]["heartbeat"]["every"] == "25m"
    again = alive.json("heartbeats", "gateway of Ada", "Ada")
    assert again["result"]["updated"] == 1
    assert simulator.config_writes == writes + 1


def test_heartbeats_name_the_agent_that_has_none_to_set(staffed: Provisioner) -> None:
    failed = staffed.run("heartbeats", "gateway of Ada")
    assert failed.exit_code == 1
    assert "1 of 1 agents" in failed.stdout
    assert 'provisioner heartbeats "gateway of Ada"' in failed.stdout


def test_a_board_gets_one_lead_and_the_gateway_its_main_agent(
    staffed: Provisioner, simulator: Simulator
) -> None:
    made = staffed.run("lead", "Board Ada", "--name", "Lea")
    assert made.exit_code == 0, made.output
    assert "there was one" in staffed.run("lead", "Board Ada", "--name", "Lea").stdout
    assert [line["is_board_lead"] for line in staffed.json("agent", "list") if line["name"] == "Lea"] == [
        True
    ]
    main = staffed.json("main", "gateway of Ada", "--no-wake")
    assert main["status"] == "succeeded"
    assert main["result"]["openclaw_id"] in simulator.agents()
    assert sum(name.startswith("lead-") for name in simulator.agents()) == 1
