"""A job that failed has done what its rows say, and a retry goes on from there (docs/operations.md)."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from tests.integration.sync.scene import Scene, on_one_release
from worker.jobs.store.retrying import retry
from worker.lab.simulator.faults import Fault, Refuse
from worker.roster.intents import RosterChange, record_intents
from worker.roster.writer import write_roster

pytestmark = on_one_release


def test_a_provision_that_fails_at_the_wake_has_registered_its_agent_and_written_its_files(
    scene: Scene,
) -> None:
    agent = scene.agent("Ann")
    refused = Fault(Refuse("no", code="INVALID_REQUEST"), "chat.send")
    scene.simulator.faults.schedule(refused)
    job_id = scene.ask("provision_agent", agent_id=agent)
    scene.serve()
    job, row = scene.job(job_id), scene.rows(job_id)["Ann"]
    assert (job.status, row.status, row.phase) == ("failed", "failed", "wake")
    assert f"mc-{agent}" in scene.simulator.agents()
    folder = Path(scene.simulator.workspace(f"mc-{agent}"))
    written = {name for name, file in row.files.items() if file["action"] == "create"}
    assert {"SOUL.md", "AGENTS.md"} <= written
    contents = {name: (folder / name).read_text() for name in ("SOUL.md", "AGENTS.md")}
    with scene.engine.begin() as connection:
        again = retry(connection, job_id, requested_by=None)
    with scene.counting() as costs:
        scene.serve()
    assert (scene.job(again).status, scene.job(again).result["woken"]) == ("succeeded", True)
    assert costs.calls["agents.files.set"] == costs.calls["config.patch"] == 0
    assert {name: (folder / name).read_text() for name in contents} == contents


def test_a_mode_that_takes_no_token_is_named_by_every_job_until_doctor_was_let_in(scene: Scene) -> None:
    """Also by those that do not try the token again (2026.9.6's own words)."""
    details = {"code": "AUTH_UNAUTHORIZED", "authReason": "trusted_proxy_untrusted_source"}
    refusal = Refuse("unauthorized", code="INVALID_REQUEST", details=details)
    order = scene.simulator.faults.schedule(Fault(refusal, "connect", times=None))
    agent = scene.agent("Ann")
    for again in (False, True, True):
        job_id = scene.ask("provision_agent", agent_id=agent)
        scene.serve()
        job = scene.job(job_id)
        assert job.status == "failed"
        assert "has gateway.auth.mode trusted-proxy, which takes no token" in job.error
        assert "set gateway.auth.mode to token in its openclaw.json" in job.error
        assert job.error.count("refused this token before") == again
    with scene.engine.begin() as connection:
        record_intents(connection, scene.fleet.gateway_id, uuid4(), RosterChange(agent, f"mc-{agent}"))
    write_roster(scene.services, scene.fleet.gateway_id)
    kept = scene.row("SELECT last_error, error FROM provisioner.gateway_states, provisioner.roster_intents")
    assert kept.error.count("refused this token before") == 1
    assert "refused this token before" not in kept.last_error, "it would be said within itself"
    assert order.happened == 1
