"""cancel, retry and prune, as an operator types them."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from tests.integration.cli.test_requests import end


def test_a_queued_job_is_cancelled_and_then_retried(fleet: Provisioner, engine: Engine) -> None:
    job = fleet.json("sync", "g", "--no-wait", "--overwrite")
    cancelled = fleet.run("cancel", job["id"][:8])
    assert (cancelled.exit_code, "is cancelled" in cancelled.stdout) == (0, True)
    assert "has ended before: cancelled" in fleet.refused("cancel", job["id"], code=1)
    new = fleet.json("retry", job["id"][:8], "--no-wait")
    assert (new["parent_job_id"], new["requested_by"], new["status"]) == (job["id"], "cli", "queued")
    assert new["options"]["overwrite"] is True
    assert "is being done again" in fleet.refused("retry", job["id"], code=1)
    end(engine, new["id"], "succeeded")
    assert "there is nothing to do again" in fleet.refused("retry", new["id"], code=1)


def test_a_running_job_is_only_asked_to_end_with_no_wait(fleet: Provisioner, engine: Engine) -> None:
    job = fleet.json("provision", "Ada", "--no-wait")
    with engine.begin() as connection:
        connection.execute(text("UPDATE provisioner.jobs SET status = 'running', started_at = now()"))
    asked = fleet.json("cancel", job["id"], "--no-wait")
    assert asked["status"] == "running"
    assert asked["cancel_requested_at"] is not None
    assert "cancel asked for" in " ".join(fleet.run("job", job["id"]).stdout.split())


def test_what_failed_for_its_gateway_is_retried_and_watched(staffed: Provisioner) -> None:
    failed = staffed.json("provision", "Bea", code=1)
    again = staffed.run("retry", failed["id"])
    assert again.exit_code == 1
    assert "does again what job" in again.stderr
    assert "provision agent Bea failed" in " ".join(again.stdout.split())


def test_a_job_that_nobody_knows_is_wrong_use(fleet: Provisioner) -> None:
    assert "There is no job" in fleet.refused("cancel", "abcd1234")
    assert "is not a job's id" in fleet.refused("retry", "Ada")


def test_prune_says_how_many_and_keeps_what_is_young(fleet: Provisioner, engine: Engine) -> None:
    for _ in range(3):
        end(engine, fleet.json("sync", "g", "--no-wait")["id"], "failed")
    with engine.begin() as connection:
        connection.execute(text("UPDATE provisioner.jobs SET finished_at = now() - interval '40 days'"))
    end(engine, fleet.json("sync", "g", "--no-wait")["id"], "failed")
    assert fleet.json("prune", "--dry-run")["jobs"] == 3
    assert "Nothing to delete" in fleet.run("prune", "--older-than", "6w").stdout
    assert fleet.run("prune").stdout.startswith("3 jobs that ended more than 30d ago deleted")
    assert len(fleet.json("jobs")) == 1


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", "99999999d"])
def test_an_age_that_is_none_is_wrong_use(fleet: Provisioner, age: str) -> None:
    assert "--older-than" in fleet.refused("prune", f"--older-than={age}")
