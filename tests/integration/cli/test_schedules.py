"""schedule add, list and remove."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner


def test_a_schedule_is_added_listed_and_removed(fleet: Provisioner) -> None:
    gateway = fleet.json("gateway", "list")[0]["name"]
    nightly = fleet.json("schedule", "add", gateway, "--cron", "0 3 * * *", "--timezone", "Europe/Berlin")
    assert (nightly["cron"], nightly["timezone"], nightly["every_s"]) == ("0 3 * * *", "Europe/Berlin", None)
    fleet.run("schedule", "add", gateway, "--every", "6h", "--dry-run", "--no-main")
    listed = fleet.json("schedule", "list")
    assert {s["every_s"] for s in listed} == {None, 21600.0}
    assert {s["options"]["dry_run"] for s in listed} == {True, False}
    shown = fleet.run("schedule", "list").stdout
    assert "every 6h" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    fleet.run("schedule", "remove", nightly["id"][:8])
    assert len(fleet.json("schedule", "list")) == 1


def test_its_next_runs_are_told_in_its_own_time(fleet: Provisioner) -> None:
    gateway = fleet.json("gateway", "list")[0]["name"]
    told = fleet.run("schedule", "add", gateway, "--cron", "0 3 * * *", "--timezone", "Asia/Tokyo").stdout
    assert told.count(" 03:0") == 3
    assert told.count("JST") == 3


@pytest.mark.parametrize(
    ("options", "sign"),
    [
        ((), "either an interval or a cron expression"),
        (("--every", "soon"), "'soon' is no interval"),
        (("--every", "0m"), "at most once a minute"),
        (("--cron", "at night"), "'at night' is no cron expression"),
        (("--cron", "0 3 * * *", "--timezone", "Mars/Base"), "'Mars/Base'"),
    ],
)
def test_what_cannot_be_is_refused(
    fleet: Provisioner, engine: Engine, options: tuple[str, ...], sign: str
) -> None:
    gateway = fleet.json("gateway", "list")[0]["name"]
    assert sign in fleet.refused("schedule", "add", gateway, *options)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM provisioner.sync_schedules")).scalar_one() == 0


def test_an_unknown_schedule_is_named(fleet: Provisioner) -> None:
    assert "There is no schedule 'abcd'" in fleet.refused("schedule", "remove", "abcd")
