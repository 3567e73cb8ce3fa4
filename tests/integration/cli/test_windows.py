"""window add, list and remove."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner

NIGHT = ("--cron", "0 4 * * *", "--duration", "3h", "--timezone", "Europe/Berlin")


def test_a_window_is_added_listed_and_removed(fleet: Provisioner) -> None:
    gateway = fleet.json("gateway", "list")[0]["name"]
    said = fleet.run("window", "add", gateway, *NIGHT).stdout
    assert "allows changes" in said
    assert said.count(" 04:00 CE") == said.count(" to ") == 3
    frozen = fleet.json(
        "window", "add", gateway, "--deny", "--cron", "0 0 20 12 *", "--duration", "14d", "--all"
    )
    assert (frozen["effect"], frozen["duration_s"], frozen["timezone"], frozen["all"]) == (
        "deny",
        14 * 86400.0,
        "UTC",
        True,
    )
    listed = fleet.run("window", "list", gateway).stdout
    assert all(len(line) <= 80 for line in listed.splitlines())
    assert f"{gateway}: " in listed
    assert "Europe/Berlin" in listed
    assert len(fleet.json("window", "list")) == 2
    fleet.run("window", "remove", frozen["id"][:8])
    assert [each["effect"] for each in fleet.json("window", "list")] == ["allow"]


@pytest.mark.parametrize(
    ("options", "sign"),
    [
        (("--cron", "0 2 * * *", "--duration", "long"), "'long' is no time"),
        (("--cron", "0 2 * * *", "--duration", "32d"), "too long"),
        (("--cron", "* 2 * * *", "--duration", "1h"), "more than once an hour"),
        (("--cron", "0 2 30 2 *", "--duration", "1h"), "never comes"),
        (("--cron", "0 2 * * *", "--duration", "1h", "--timezone", "Mars/Base"), "'Mars/Base'"),
        (
            ("--deny", "--cron", "0 1 * * *", "--duration", "7h", "--timezone", "Europe/Berlin"),
            "another denies",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    fleet: Provisioner, engine: Engine, options: tuple[str, ...], sign: str
) -> None:
    gateway = fleet.json("gateway", "list")[0]["name"]
    fleet.run("window", "add", gateway, *NIGHT)
    assert sign in fleet.refused("window", "add", gateway, *options)
    assert "this window already" in fleet.refused("window", "add", gateway, *NIGHT)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM provisioner.sync_windows")).scalar_one() == 1


def test_a_window_without_which_none_would_open_stays(fleet: Provisioner) -> None:
    gateway = fleet.json("gateway", "list")[0]["name"]
    noon = fleet.json("window", "add", gateway, "--cron", "0 12 * * *", "--duration", "1h")
    fleet.run("window", "add", gateway, "--cron", "0 2 * * *", "--duration", "1h")
    fleet.run("window", "add", gateway, "--deny", "--cron", "0 1 * * *", "--duration", "5h")
    assert "Without this window" in fleet.refused("window", "remove", noon["id"])
    assert len(fleet.json("window", "list")) == 3
    assert "There is no window 'abcd'" in fleet.refused("window", "remove", "abcd")
