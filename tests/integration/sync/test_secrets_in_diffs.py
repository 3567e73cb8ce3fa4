"""No diff that a sync keeps shows an agent's token, wherever the agent noted it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.integration.sync.scene import Scene
from worker.masking import forget_all
from worker.workspace.tokens import find_token, hash_token


@pytest.mark.parametrize(
    "options", [{"dry_run": True}, {}, {"rotate_tokens": True}], ids=["dry run", "sync", "rotation"]
)
def test_a_token_that_the_agent_noted_elsewhere(scene: Scene, options: dict[str, bool]) -> None:
    agent = scene.agent("Ann")
    scene.provision(agent)
    folder = Path(scene.simulator.workspace(f"mc-{agent}"))
    newest = scene.simulator.release.roster_is_map
    carrier = folder / ("AGENTS.md" if newest else "TOOLS.md")
    before = find_token(carrier.read_text(), section=newest)
    assert before is not None
    (folder / "SOUL.md").write_text(f"my word is {before}\npassword: correct-horse-battery\n")
    forget_all()  # another worker's process has never had it in hand
    job = scene.sync(diff=True, include_main=False, overwrite_files=["SOUL.md"], **options)
    after = find_token(carrier.read_text(), section=newest)
    assert after is not None
    assert (after != before) is options.get("rotate_tokens", False)
    row = scene.rows(job.id)["Ann"]
    assert row.status == "succeeded", row.reason
    diff = row.files["SOUL.md"]["diff"]
    assert "-my word is <masked>\n" in diff
    assert "correct-horse-battery" not in diff
    kept = json.dumps([row.files, row.warnings, job.result, job.warnings])
    assert before not in kept
    assert after not in kept


@pytest.mark.parametrize("options", [{"dry_run": True}, {}], ids=["dry run", "sync"])
def test_a_conflict_is_shown_without_the_token_in_a_file_that_was_not_read(
    scene: Scene, options: dict[str, bool]
) -> None:
    """A conflict has a diff without being asked for one. The token does not look like one of ours."""
    agent = scene.agent("Ann", soul_template="one\ntwo\nthree")
    scene.provision(agent)
    folder = Path(scene.simulator.workspace(f"mc-{agent}"))
    newest = scene.simulator.release.roster_is_map
    carrier = folder / ("AGENTS.md" if newest else "TOOLS.md")
    minted, token = find_token(carrier.read_text(), section=newest), "blue-horse-battery"
    carrier.write_text(carrier.read_text().replace(str(minted), token))
    scene.execute("UPDATE agents SET agent_token_hash = :hash", hash=hash_token(token))
    assert scene.sync(include_main=False).status == "succeeded"
    code = base64.b64encode(token.encode()).decode()
    (folder / "SOUL.md").write_text(f"one\nmy word is {token}, or {code}\nthree")
    scene.execute("UPDATE agents SET soul_template = 'one\ndos\nthree'")
    forget_all()
    job = scene.sync(include_main=False, **options)
    row = scene.rows(job.id)["Ann"]
    assert row.files["SOUL.md"]["action"] == "conflict"
    assert "-my word is <masked>, or <masked>" in row.files["SOUL.md"]["diff"]
    kept = json.dumps([row.files, row.warnings, job.result, job.warnings])
    assert token not in kept
    assert code not in kept
