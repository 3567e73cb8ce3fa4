"""A file whose write was carried out and not answered is counted as written by the job that sent it
(interfaces.md 5): that the next try finds it as wanted is this job's doing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.agents.workspace_plan import UNANSWERED
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import Delay, Drop, Kind, Restart, Wrong

SOUL = "Written once."
KINDS = [Drop(carried_out=True), Delay(4.0, carried_out=True), Restart(carried_out=True, down_s=0.1)]


def _without_retries(scene: Scene) -> None:
    """No second try within a claim, so that the row is parked at the first lost answer."""
    settings = scene.services.settings.model_copy(update={"retry_inline_s": 0.0})
    scene.services = replace(scene.services, settings=settings)


def _sent(scene: Scene, agent: str) -> int:
    """How often the gateway was sent the agent's SOUL.md."""
    openclaw_id = f"mc-{scene.row('SELECT id FROM agents WHERE name = :name', name=agent).id}"
    names = {"agentId": openclaw_id, "name": "SOUL.md"}
    calls = scene.simulator.journal.calls
    return sum(call.method == "agents.files.set" and names.items() <= call.names.items() for call in calls)


@on_one_release
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_lost_answer_does_not_make_a_written_file_unchanged(settled: Scene, kind: Kind) -> None:
    _without_retries(settled)
    settled.execute("UPDATE agents SET soul_template = :text WHERE name IN ('Ann 0', 'Bob 1')", text=SOUL)
    settled.simulator.faults.schedule(Fault(kind, "agents.files.set", file="SOUL.md", times=None))
    job_id = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.serve()
    settled.simulator.faults.clear()
    rows = settled.rows(job_id)  # the other one, in either order, finds its gateway away
    first = next(name for name in ("Ann 0", "Bob 1") if "SOUL.md" in rows[name].files)
    parked = rows[first]
    assert parked.status == "running"
    assert (parked.files["SOUL.md"]["action"], parked.files["SOUL.md"]["sent"]) == (UNANSWERED, "update")
    sent = _sent(settled, first)

    settled.serve_until_ended(job_id)

    job, rows = settled.job(job_id), settled.rows(job_id)
    assert job.status == "succeeded", job.error
    assert rows[first].files["SOUL.md"]["action"] == "update"
    assert (job.result["files_written"], job.result["agents_unchanged"]) == (2, 3)
    assert _sent(settled, first) == sent, "what had been carried out is not sent again"


@on_one_release
def test_a_file_that_was_not_written_after_all_is_sent_again(settled: Scene) -> None:
    _without_retries(settled)
    settled.execute("UPDATE agents SET soul_template = :text WHERE name = 'Ann 0'", text=SOUL)
    settled.simulator.faults.schedule(Fault(Drop(carried_out=False), "agents.files.set", file="SOUL.md"))
    job_id = settled.ask("sync_gateway", gateway_id=settled.fleet.gateway_id)
    settled.serve()
    assert settled.rows(job_id)["Ann 0"].files["SOUL.md"]["action"] == UNANSWERED
    sent = _sent(settled, "Ann 0")
    settled.serve_until_ended(job_id)
    assert settled.rows(job_id)["Ann 0"].files["SOUL.md"]["action"] == "update"
    assert _sent(settled, "Ann 0") == sent + 1


@on_one_release
def test_a_file_whose_answer_cannot_be_read_is_not_said_to_be_written(settled: Scene) -> None:
    settled.execute("UPDATE agents SET soul_template = :text WHERE name = 'Ann 0'", text=SOUL)
    settled.simulator.faults.schedule(Fault(Wrong("text"), "agents.files.set", file="SOUL.md", times=None))
    job = settled.sync()
    row = settled.rows(job.id)["Ann 0"]
    assert row.status == "failed"
    assert row.files["SOUL.md"]["action"] == UNANSWERED
    assert job.result["files_written"] == 0


def test_a_new_token_whose_answer_is_lost_is_written_by_this_job(settled: Scene) -> None:
    _without_retries(settled)
    carrier = "AGENTS.md" if settled.simulator.release.name == "2026.9.6" else "TOOLS.md"
    settled.simulator.faults.schedule(Fault(Drop(carried_out=True), "agents.files.set", file=carrier))
    agent = settled.row("SELECT id FROM agents WHERE name = 'Ann 0'").id
    job_id = settled.ask("update_agent", agent_id=agent, rotate_tokens=True)
    settled.serve()
    assert settled.rows(job_id)["Ann 0"].files[carrier]["action"] == UNANSWERED
    settled.serve_until_ended(job_id)
    assert settled.job(job_id).status == "succeeded"
    assert settled.rows(job_id)["Ann 0"].files[carrier]["action"] == "update"
