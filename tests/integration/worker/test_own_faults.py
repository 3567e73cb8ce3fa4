"""A fault of our own, or of the database's makers, ends a job with a sentence; the log has the traceback."""

from __future__ import annotations

from tests.integration.agents.fleet import execute, seed_fleet
from tests.integration.worker.workshop import Workshop


def test_what_nobody_expected_ends_the_job_before_it_begins(workshop: Workshop) -> None:
    fleet = seed_fleet(workshop.engine)
    execute(workshop.engine, "ALTER TABLE agents ADD CONSTRAINT no_bosses CHECK (name <> 'Boss') NOT VALID")
    try:
        job = workshop.ended(
            workshop.ask("ensure_board_lead", board_id=fleet.board_id, agent_name="Boss"), within_s=20
        )
    finally:
        execute(workshop.engine, "ALTER TABLE agents DROP CONSTRAINT no_bosses")
    assert job.status == "failed"
    assert "no_bosses" in workshop.logs()
    assert job.error == "Internal error (IntegrityError): see the worker's log of this job."
