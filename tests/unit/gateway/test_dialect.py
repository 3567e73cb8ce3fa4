"""A release is recognized by what it can do, whatever version it reports."""

from __future__ import annotations

import pytest

from worker.gateway.dialect import Dialect

FEBRUARY_12 = {"config.get", "config.patch", "agents.list", "cron.list", "chat.history"}
FEBRUARY_26 = FEBRUARY_12 | {"secrets.reload"}
NEWEST = FEBRUARY_26 | {"agents.workspace.list", "cron.scratch.get", "cron.scratch.set"}
VERSIONS = ["dev", "unknown", "2026.2.26", "2026.9.6", "2027.1.0", "2026.10.1-beta.1", "v3"]


@pytest.mark.parametrize("version", ["dev", "unknown", "2026.2.12"])
def test_the_oldest_replaces_lists_and_writes_variables_out(version: str) -> None:
    dialect = Dialect.from_hello(version, FEBRUARY_12)
    assert (dialect.roster, dialect.merges_lists, dialect.writes_variables) == ("list", False, True)
    assert (dialect.keeps_files_per_session, dialect.latest_restart_s) == (False, 3.0)


@pytest.mark.parametrize("version", VERSIONS)
def test_one_with_secrets_merges_lists_and_keeps_files_per_session_whatever_its_version(version: str) -> None:
    dialect = Dialect.from_hello(version, FEBRUARY_26)
    assert (dialect.roster, dialect.merges_lists, dialect.writes_variables) == ("list", True, False)
    assert (dialect.keeps_files_per_session, dialect.latest_restart_s) == (True, 35.0)


@pytest.mark.parametrize("version", VERSIONS)
def test_one_with_scratches_keeps_a_map_whatever_its_version(version: str) -> None:
    dialect = Dialect.from_hello(version, NEWEST)
    assert (dialect.roster, dialect.credentials_in, dialect.heartbeat_in) == (
        "entries",
        "AGENTS.md",
        "scratch",
    )
    assert (dialect.keeps_files_per_session, dialect.writes_variables) == (False, False)


def test_from_the_release_on_that_lists_workspaces_the_wake_message_carries_the_bootstrap_file() -> None:
    assert not Dialect.from_hello("2026.3.13", FEBRUARY_26).drops_bootstrap
    assert Dialect.from_hello("2026.7.1", FEBRUARY_26 | {"agents.workspace.list"}).drops_bootstrap
    assert Dialect.from_hello("2026.9.6", NEWEST).drops_bootstrap
