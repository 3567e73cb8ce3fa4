"""The file with the token is read back, and only what is found there as it was sent is committed
(rules.md 27)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.scene import Scene, on_one_release
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import FakeReply

pytestmark = on_one_release
CARRIER = "AGENTS.md"
REFUSED = "AGENTS.md was written, but reads back differently: nothing was committed."


@pytest.fixture
def agent(scene: Scene) -> UUID:
    """Brought to life, and due for another file with its token since: its board got another name."""
    agent = scene.agent("Ann")
    scene.provision(agent)
    scene.execute("UPDATE boards SET name = 'Something else'")
    return agent


def committed(scene: Scene, agent: UUID) -> tuple[str, Any]:
    """The hash of the token that is the agent's, and what is on record of the file that carries it."""
    row = scene.row("SELECT agent_token_hash FROM agents WHERE id = :id", id=agent)
    record = scene.row(
        "SELECT source_sha256, size, updated_at_ms FROM provisioner.agent_files"
        " WHERE agent_id = :id AND name = :name",
        id=agent,
        name=CARRIER,
    )
    return row.agent_token_hash, record


@pytest.mark.parametrize("rotate", [False, True], ids=["the same token", "another token"])
def test_a_file_that_reads_back_differently_is_not_committed(scene: Scene, agent: UUID, rotate: bool) -> None:
    before = committed(scene, agent)
    scene.simulator.faults.schedule(Fault(FakeReply(), "agents.files.set", file=CARRIER))
    job_id = scene.ask("update_agent", agent_id=agent, rotate_tokens=rotate, wake=False)
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.error) == ("failed", REFUSED)
    assert committed(scene, agent) == before


def test_a_token_that_nobody_would_find_in_its_file_is_not_committed(
    scene: Scene, agent: UUID, tmp_path: Path
) -> None:
    """An operator's own template tells it in a sentence, where no later run looks for it."""
    own = tmp_path / "templates" / "board"
    own.mkdir(parents=True)
    (own / "TOOLS.md.j2").write_text("## Tools\n\nYour token is {{ auth_token }}.\n")
    settings = scene.services.settings.model_copy(update={"templates_dir": own.parent})
    scene.services = replace(scene.services, settings=settings)
    before = committed(scene, agent)
    job_id = scene.ask("update_agent", agent_id=agent, rotate_tokens=True, wake=False)
    scene.serve()
    job = scene.job(job_id)
    assert (job.status, job.error) == ("failed", REFUSED)
    assert committed(scene, agent) == before
