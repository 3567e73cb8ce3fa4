"""provision, jobs and job, seen from the rows, without a worker."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker.cli.submit import watch
from worker.jobs.store.jobs import refuse


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM provisioner.jobs ORDER BY created_at")))


def end(engine: Engine, job_id: str, status: str, error: str | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE provisioner.jobs SET status = :status, error = :error, started_at = now(),"
                " finished_at = now(), next_attempt_at = NULL WHERE id = :id"
            ),
            {"id": job_id, "status": status, "error": error},
        )


def test_provision_writes_a_row_with_the_options_given(fleet: Provisioner, engine: Engine) -> None:
    job = fleet.json("provision", "Ada", "--no-wait", "--no-wake", "--no-reset", "--force-bootstrap")
    (row,) = rows(engine)
    assert str(row.id) == job["id"]
    assert (row.kind, row.status, row.requested_by) == ("provision_agent", "queued", "cli")
    assert (row.options["wake"], row.options["reset_session"], row.options["force_bootstrap"]) == (
        False,
        False,
        True,
    )


def test_without_json_the_job_id_is_all_that_stdout_holds(fleet: Provisioner, engine: Engine) -> None:
    shown = fleet.run("provision", "Ada", "--no-wait").stdout.strip()
    assert UUID(shown) == rows(engine)[0].id


def test_the_same_request_finds_its_job_and_other_options_are_refused(
    fleet: Provisioner, engine: Engine
) -> None:
    first = fleet.json("provision", "Ada", "--no-wait", "--request", "r1")
    assert fleet.json("provision", "Ada", "--no-wait", "--request", "r1")["id"] == first["id"]
    assert first["id"] in fleet.refused("provision", "Ada", "--no-wait", "--request", "r1", "--no-wake")
    assert fleet.json("job", "--request", "r1")["id"] == first["id"]
    assert len(rows(engine)) == 1


def test_a_request_that_two_agents_share_asks_for_an_id(fleet: Provisioner) -> None:
    jobs = [fleet.json("provision", name, "--no-wait", "--request", "r")["id"] for name in ("Ada", "Ben")]
    said = fleet.refused("job", "--request", "r")
    assert all(job in said for job in jobs)


def test_jobs_are_listed_newest_first_by_status_and_limit(fleet: Provisioner, engine: Engine) -> None:
    ada = fleet.json("provision", "Ada", "--no-wait")["id"]
    ben = fleet.json("provision", "Ben", "--no-wait")["id"]
    end(engine, ada, "failed", "the gateway is away")
    assert [job["id"] for job in fleet.json("jobs")] == [ben, ada]
    assert [job["id"] for job in fleet.json("jobs", "--limit", "1")] == [ben]
    assert [job["id"] for job in fleet.json("jobs", "--status", "failed")] == [ada]
    assert "No job is partial." in fleet.run("jobs", "--status", "partial").stdout
    shown = fleet.run("jobs").stdout
    assert ada[:8] in shown
    assert "Ada" in shown


def test_a_failed_job_is_shown_with_its_error_and_what_to_do(fleet: Provisioner, engine: Engine) -> None:
    job = fleet.json("provision", "Ada", "--no-wait")["id"]
    end(engine, job, "failed", "the gateway does not accept our token")
    result = fleet.run("job", job[:8])
    assert result.exit_code == 1
    assert "the gateway does not accept our token" in result.stdout
    assert "provisioner doctor g" in result.stdout
    assert fleet.json("job", job, code=1)["error"] == "the gateway does not accept our token"


def test_watching_a_job_that_has_ended_returns_at_once(fleet: Provisioner, engine: Engine) -> None:
    job = fleet.json("provision", "Ada", "--no-wait")["id"]
    end(engine, job, "succeeded")
    assert fleet.json("job", job, "--watch")["status"] == "succeeded"


def test_a_refused_request_without_a_target_is_shown_too(provisioner: Provisioner, engine: Engine) -> None:
    key = uuid4()
    with engine.begin() as connection:
        refuse(connection, key, "provision_agent", "agent_id is missing.", {})
    result = provisioner.run("job", str(key))
    assert (result.exit_code, "agent_id is missing." in result.stdout) == (1, True)
    assert provisioner.run("jobs").exit_code == 0


def test_a_terminal_shows_a_table_that_ends_with_the_outcome(fleet: Provisioner, engine: Engine) -> None:
    ids = [UUID(fleet.json("provision", name, "--no-wait")["id"]) for name in ("Ada", "Ben")]
    open_ones = list(ids)
    screen = io.StringIO()

    def a_worker_ends_one() -> None:
        end(engine, str(open_ones.pop()), "failed" if open_ones else "succeeded", "the disk is full")

    jobs = watch(engine, ids, Console(file=screen, force_terminal=True, width=80), check=a_worker_ends_one)
    assert [job.status for job in jobs] == ["succeeded", "failed"]
    first, last = screen.getvalue(), screen.getvalue().splitlines()[-3:]
    assert "waiting for a worker" in first
    assert any("Ben" in line and "the disk is full" in line for line in last)
