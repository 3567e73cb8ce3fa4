"""gateway, board and agent: add and list, and what is refused."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner


def test_what_is_added_is_listed(provisioner: Provisioner) -> None:
    provisioner.json("gateway", "add", "g", "--url", "ws://127.0.0.1:9", "--token-file", "-", stdin="t0ken\n")
    provisioner.json("board", "add", "Launch", "--gateway", "g")
    provisioner.json("agent", "add", "Ada", "--board", "Launch", "--lead")
    provisioner.json("agent", "add", "Ben", "--board", "Launch")
    (gateway,) = provisioner.json("gateway", "list")
    (board,) = provisioner.json("board", "list")
    ada, ben = provisioner.json("agent", "list")
    assert (gateway["name"], gateway["url"], gateway["boards"], gateway["agents"]) == (
        "g",
        "ws://127.0.0.1:9",
        1,
        2,
    )
    assert (board["name"], board["gateway"], board["lead"]) == ("Launch", "g", "Ada")
    assert (ada["name"], ada["is_board_lead"], ada["gateway_id"]) == ("Ada", True, gateway["id"])
    assert (ben["name"], ben["is_board_lead"], ben["status"]) == ("Ben", False, "offline")


@pytest.mark.parametrize("noun", ["gateway", "board", "agent"])
def test_lists_are_read_by_people_too(fleet: Provisioner, noun: str) -> None:
    shown = fleet.run(noun, "list").stdout
    assert fleet.json(noun, "list")[0]["id"][:8] in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_the_first_gateway_comes_with_an_organization_and_its_owner(
    provisioner: Provisioner, engine: Engine
) -> None:
    for name in ("a", "b"):
        provisioner.json("gateway", "add", name, "--url", f"ws://{name}:1", "--token-file", "-", stdin="t")
    with engine.connect() as connection:
        owners = connection.execute(
            text(
                "SELECT m.role, u.id, o.id FROM organizations o"
                " JOIN organization_members m ON m.organization_id = o.id JOIN users u ON u.id = m.user_id"
            )
        ).all()
    assert [row.role for row in owners] == ["owner"]


def test_a_gateways_token_is_stored_and_never_shown(provisioner: Provisioner, engine: Engine) -> None:
    provisioner.json("gateway", "add", "g", "--url", "ws://127.0.0.1:9", "--token-file", "-", stdin="t0ken\n")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT token FROM gateways")).scalar_one() == "t0ken"
    shown = provisioner.run("gateway", "list").output + provisioner.run("gateway", "list", "--json").output
    assert "t0ken" not in shown


def test_the_token_may_come_from_the_environment(provisioner: Provisioner, engine: Engine) -> None:
    provisioner.env["OPENCLAW_GATEWAY_TOKEN"] = "fr0m-env"
    provisioner.json("gateway", "add", "g", "--url", "ws://h:1")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT token FROM gateways")).scalar_one() == "fr0m-env"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["gateway", "add", "n", "--url", "http://h:1"], "ws://h:1"),
        (["gateway", "add", "n", "--url", "ws://h:1/?token=s3cret"], "holds no token"),
        (["gateway", "add", "n", "--url", "ws://u:s3cret@h:1"], "holds no token"),
        (["gateway", "add", "n", "--url", "ws://h:1", "--workspace-root", " "], "workspace_root"),
        (["gateway", "add", "g", "--url", "ws://h:1"], "already"),
        (["gateway", "add", "n", "--url", "ws://127.0.0.1:9"], "'g' has the URL"),
        (["gateway", "add", " ", "--url", "ws://h:1"], "needs a name"),
        (["gateway", "add", "n", "--url", "ws://h:1", "--token-file", "/nowhere"], "/nowhere"),
        (["board", "add", "Launch", "--gateway", "g"], "already"),
        (["board", "add", "B", "--gateway", "nope"], "no gateway 'nope'"),
        (["agent", "add", "Carl", "--board", "Launch", "--lead"], "'Ada'; a board has one"),
        (["agent", "add", "Ben", "--board", "Launch"], "already"),
        (["agent", "add", "Carl", "--board", "nope"], "no board 'nope'"),
        (["provision", "nope"], "no agent 'nope'"),
        (["doctor", "nope"], "no gateway 'nope'"),
        (["jobs", "--status", "done"], "succeeded"),
        (["job"], "--request"),
        (["job", "not-an-id"], "not a job's id"),
        (["job", "00000000"], "no job"),
        (["provision", "Ada", "--request", " "], "not blank"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_right_is_refused_with_a_sentence(
    fleet: Provisioner, arguments: list[str], why: str
) -> None:
    said = fleet.refused(*arguments)
    assert why in said
    assert "s3cret" not in said
    assert said[0].isupper() or said[0] in "-'"


def test_a_name_that_two_agents_have_asks_for_an_id(fleet: Provisioner) -> None:
    fleet.json("board", "add", "Second", "--gateway", "g")
    twin = fleet.json("agent", "add", "Ben", "--board", "Second")["id"]
    assert twin in fleet.refused("provision", "Ben")
    assert fleet.run("provision", twin[:13], "--no-wait").exit_code == 0


def test_names_are_found_whatever_their_case_unless_one_fits_exactly(fleet: Provisioner) -> None:
    fleet.json("agent", "add", "ADA", "--board", "launch")
    upper = fleet.json("provision", "ADA", "--no-wait")
    assert upper["agent_name"] == "ADA"
    assert "Several" in fleet.refused("provision", "ada")


def test_a_database_of_mission_controls_own_is_not_added_to(database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER TABLE gateways ADD COLUMN allow_insecure_tls boolean")
    provisioner = Provisioner(database_url, tmp_path / "device.pem")
    said = provisioner.refused("gateway", "add", "g", "--url", "ws://h:1")
    assert "Mission Control's own" in said
