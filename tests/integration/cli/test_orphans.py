"""orphans: what is without its other half on a gateway, what is removed, and what never is (rules.md 53)."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from tests.integration.cli.test_update import id_of
from tests.owners_files import save
from worker.lab.simulator import Simulator
from worker.workspace.tokens import find_token

GATEWAY = "gateway of Ada"


def execute(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def add_entry(simulator: Simulator, key: str, base_url: str | None) -> None:
    """An agent that some other program made."""
    document = json.loads(simulator.config_path.read_text())
    folder = simulator.state_dir / "own" / key
    document["agents"]["entries"][key] = {"workspace": str(folder)}
    folder.mkdir(parents=True)
    if base_url is not None:
        (folder / "AGENTS.md").write_text(f"## Tools\n\nBASE_URL={base_url}\nAUTH_TOKEN=theirs\n")
    save(simulator.config_path.parent, "openclaw.json", document)


@pytest.fixture
def pair(staffed: Provisioner) -> tuple[UUID, UUID]:
    """The ids of Ada, and of Eve beside her, both provisioned."""
    staffed.json("provision", "Ada", "--no-wake")
    staffed.json("agent", "add", "Eve", "--board", "Board Ada")
    staffed.json("provision", "Eve", "--no-wake")
    return id_of(staffed, "Ada"), id_of(staffed, "Eve")


def test_each_is_named_with_its_cure_and_only_what_we_made_is_removed(
    staffed: Provisioner, simulator: Simulator, engine: Engine, pair: tuple[UUID, UUID]
) -> None:
    ada, eve = pair
    stranger = f"mc-{uuid4()}"
    add_entry(simulator, stranger, "https://another.example")
    add_entry(simulator, "shop", None)
    execute(engine, "DELETE FROM agents WHERE id = :id", id=ada)
    staffed.json("agent", "add", "Dee", "--board", "Board Ada")
    sessions = simulator.state_dir / "agents" / "ghost" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "sessions.json").write_text('{"agent:ghost:main": {"sessionId": "x", "updatedAt": 1}}')
    found = staffed.json("orphans", GATEWAY)
    kinds = {one["id"]: (one["kind"], one["removable"]) for one in found["orphans"]}
    assert kinds == {
        f"mc-{ada}": ("entry", True),
        f"mc-{id_of(staffed, 'Dee')}": ("row", False),
        stranger: ("not ours", False),
        "shop": ("not ours", False),
        "main": ("not ours", False),
        "ghost": ("session", False),
    }
    assert found["older"] == []
    page = staffed.run("orphans", GATEWAY).stdout
    assert f'provisioner orphans "{GATEWAY}" --remove mc-{ada}' in " ".join(page.split())

    place = "INSERT INTO provisioner.agent_places (agent_id, gateway_id, openclaw_id, session_key, until)"
    execute(
        engine,
        f"{place} SELECT :id, gateway_id, 'shop', 'agent', now() FROM provisioner.agent_places LIMIT 1",
        id=uuid4(),
    )  # an id that somebody chose, and that was seen to be gone
    execute(engine, f"{place} VALUES (:id, :gateway_id, 'x', 'agent', NULL)", id=ada, gateway_id=uuid4())
    says = staffed.refused("orphans", GATEWAY, "--remove", f"mc-{ada}")
    assert f"`provisioner delete {ada}" in " ".join(says.split())
    execute(engine, "DELETE FROM provisioner.agent_places WHERE openclaw_id = 'x'")

    before = simulator.config_path.read_bytes()
    assert "is not ours" in staffed.refused("orphans", GATEWAY, "--remove", stranger)
    assert "is no orphan" in staffed.refused("orphans", GATEWAY, "--remove", f"mc-{eve}")
    both = staffed.refused("orphans", GATEWAY, "--remove", f"mc-{ada}", "--remove", "shop")
    assert "Nothing was removed, because shop cannot be" in both
    assert simulator.config_path.read_bytes() == before

    removed = staffed.json("orphans", GATEWAY, "--remove", f"mc-{ada}")
    assert [job["status"] for job in removed["removed"]] == ["succeeded"]
    assert f"mc-{ada}" not in simulator.agents()
    assert {f"mc-{eve}", stranger, "shop"} <= set(simulator.agents())
    [bundle] = staffed.json("bundles")
    assert (bundle["reason"], bundle["whole"], bundle["openclaw_id"]) == ("orphan", True, f"mc-{ada}")
    assert "is no orphan" in staffed.refused("orphans", GATEWAY, "--remove", f"mc-{ada}")


def test_a_database_that_is_older_than_the_gateway_removes_nothing(
    staffed: Provisioner, simulator: Simulator, engine: Engine, pair: tuple[UUID, UUID]
) -> None:
    ada, eve = pair
    execute(engine, "DELETE FROM agents WHERE id = :id", id=ada)
    remove = ("orphans", GATEWAY, "--remove", f"mc-{ada}")
    carrier = simulator.workspace(f"mc-{ada}") / "AGENTS.md"
    whole = carrier.read_text()
    token = find_token(whole, section=True)
    assert token

    def refused(why: str) -> None:
        said = " ".join(staffed.refused(*remove).split())
        assert "this database may be older than gateway" in said
        assert why in said
        assert f"mc-{ada}" in simulator.agents()

    # Ada was restored, and given a new token, after the back-up.
    carrier.write_text(whole.replace(token, "another-token-of-hers-that-is-long"))
    refused(f"the token of mc-{ada} is another one than this database knew last")
    # Nothing of her token is on record, and her file is younger than everything.
    execute(engine, "UPDATE provisioner.agent_places SET since = since - interval '1 day'")
    execute(engine, "UPDATE provisioner.agent_files SET applied_at = applied_at - interval '1 day'")
    execute(engine, "UPDATE provisioner.job_agents SET finished_at = finished_at - interval '1 day'")
    execute(engine, "UPDATE provisioner.job_agents SET started_at = started_at - interval '1 day'")
    execute(engine, "DELETE FROM provisioner.agent_credentials WHERE agent_id = :id", id=ada)
    refused(f"AGENTS.md of mc-{ada} was written on")
    execute(engine, "UPDATE provisioner.agent_places SET since = now()")
    # Eve was given a new token after the back-up.
    hers = simulator.workspace(f"mc-{eve}") / "AGENTS.md"
    text_of_eve = hers.read_text()
    hers.write_text(text_of_eve.replace(str(find_token(text_of_eve, section=True)), "a-later-token-of-hers"))
    refused("the token of agent 'Eve' is not the one that its row verifies")
    hers.write_text(text_of_eve)
    # An agent was made after the back-up: it calls our Mission Control.
    later = f"mc-{uuid4()}"
    add_entry(simulator, later, "http://127.0.0.1:8000")
    refused(f"{later} calls this Mission Control (http://127.0.0.1:8000)")
    assert "nothing can be removed" in " ".join(staffed.run("orphans", GATEWAY).stdout.split())
    document = json.loads(simulator.config_path.read_text())
    del document["agents"]["entries"][later]
    save(simulator.config_path.parent, "openclaw.json", document)
    assert staffed.run(*remove).exit_code == 0


def test_whose_an_unknown_agent_is_must_be_known(
    staffed: Provisioner, simulator: Simulator, engine: Engine, pair: tuple[UUID, UUID]
) -> None:
    ada, eve = pair
    execute(engine, "DELETE FROM agents")
    add_entry(simulator, f"lead-{uuid4()}", "https://another.example")
    said = " ".join(staffed.refused("orphans", GATEWAY, "--remove", f"mc-{ada}").split())
    assert "cannot be told without our BASE_URL" in said
    staffed.env["BASE_URL"] = "http://127.0.0.1:8000"
    done = staffed.json("orphans", GATEWAY, "--remove", f"mc-{ada}", "--remove", f"mc-{eve}")
    assert len(done["removed"]) == 2


def test_a_row_that_comes_back_before_the_removal_keeps_its_entry(
    staffed: Provisioner, simulator: Simulator, engine: Engine, pair: tuple[UUID, UUID]
) -> None:
    ada, eve = pair
    execute(engine, "CREATE TABLE away AS SELECT * FROM agents")
    execute(engine, "DELETE FROM agents")
    execute(
        engine,
        """
        CREATE FUNCTION comes_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO agents SELECT * FROM away WHERE id = new.agent_id; RETURN new; END $$
        """,
    )
    remove = ("orphans", GATEWAY, "--remove", f"mc-{ada}", "--remove", f"mc-{eve}")
    # Before the job is claimed, and once the roster writer has been asked.
    for table in ("jobs", "roster_intents"):
        execute(
            engine,
            f"CREATE TRIGGER back AFTER INSERT ON provisioner.{table} FOR EACH ROW"
            " EXECUTE FUNCTION comes_back()",
        )
        removed = staffed.json(*remove, code=1)["removed"]
        execute(engine, f"DROP TRIGGER back ON provisioner.{table}")
        assert [(job["status"], job["reason_code"]) for job in removed] == [("failed", "refused_request")] * 2
        assert "Agent 'Ada' has a row again" in removed[0]["error"]
        assert {f"mc-{ada}", f"mc-{eve}"} <= set(simulator.agents())
        assert simulator.workspace(f"mc-{ada}").is_dir()
        execute(
            engine, "UPDATE provisioner.agent_places SET until = now()"
        )  # seen to be gone, by some mistake
        execute(engine, "DELETE FROM agents")
    execute(engine, "INSERT INTO agents SELECT * FROM away")
    execute(engine, "DROP TABLE away")
    assert staffed.json("provision", "Ada", "--no-wake")["status"] == "succeeded"
