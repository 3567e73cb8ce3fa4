"""What is wrong around the command is one sentence, not a traceback, and never a password."""

from __future__ import annotations

import pytest

from tests.integration.cli.conftest import Provisioner


def test_migrate_is_needed_once_and_harmless_twice(empty: Provisioner) -> None:
    first = empty.json("migrate", "--standalone")
    again = empty.json("migrate", "--standalone")
    assert (first["before"], first["changed"]) == (None, True)
    assert again == {"before": first["after"], "after": first["after"], "changed": False}


@pytest.mark.parametrize("command", [["jobs"], ["job", "0000"], ["job", "--request", "r"]])
def test_an_unmigrated_database_asks_for_migrate(empty: Provisioner, command: list[str]) -> None:
    assert "run `provisioner migrate`" in empty.refused(*command, code=1)


@pytest.mark.parametrize("command", [["gateway", "list"], ["agent", "list"], ["provision", "Ada"]])
def test_a_database_without_mission_control_says_so(empty: Provisioner, command: list[str]) -> None:
    empty.json("migrate")
    assert "--standalone" in empty.refused(*command, code=1)


def test_nothing_can_be_added_where_mission_control_is_missing(empty: Provisioner) -> None:
    empty.json("migrate")
    said = empty.refused("gateway", "add", "g", "--url", "ws://h:1")
    assert "provisioner migrate --standalone" in said


def test_a_missing_database_url_is_named(empty: Provisioner) -> None:
    empty.env["DATABASE_URL"] = None
    assert "DATABASE_URL is not set" in empty.refused("jobs")


@pytest.mark.parametrize("url", ["postgresql://u:pa:ss@w0rd@h:1x/d", "postgresql://u:w0rd@127.0.0.1:9/d"])
def test_a_database_that_cannot_be_used_is_told_without_its_password(empty: Provisioner, url: str) -> None:
    empty.env["DATABASE_URL"] = url
    result = empty.run("jobs")
    assert result.exit_code in (1, 2)
    assert "DATABASE_URL" in result.stderr
    assert "w0rd" not in result.output


def test_the_workers_settings_are_not_asked_of_an_operator(provisioner: Provisioner) -> None:
    assert provisioner.env["REDIS_URL"] is None
    assert provisioner.json("jobs") == []
