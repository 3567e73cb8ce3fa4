"""Before a delete a bundle is kept, and an agent is restored from it with what it wrote (rules.md 52)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from tests.integration.sync.scene import Scene, on_one_release
from tests.integration.sync.test_memory_files import folder
from tests.owners_files import save
from worker.gateway import workspace_reading
from worker.lab.simulator import Simulator
from worker.records.bundles import all_bundles, find_bundle, forget_bundles, keep, open_bundle
from worker.workspace.bundle import Bundle, read_tar, to_tar
from worker.workspace.tokens import PLACEHOLDER, find_token, mint_token, verify_token

NOTE = "- You never call Ada before nine."
KEY = "k" * 32


def run(scene: Scene, kind: str, agent_id: UUID, **options: Any) -> Any:
    job = scene.ask(kind, agent_id=agent_id, **options)
    scene.serve()
    return scene.job(job)


def done(scene: Scene, kind: str, agent_id: UUID, **options: Any) -> Any:
    job = run(scene, kind, agent_id, **options)
    assert job.status == "succeeded", job.error
    return job


def bundle_of(scene: Scene, agent_id: UUID, *keys: str) -> Bundle:
    with scene.engine.connect() as connection:
        stored = find_bundle(connection, agent_id)
        assert stored is not None
        return open_bundle(connection, stored, keys)


def token_of(workspace: Path) -> str:
    texts = [
        path.read_text()
        for path in sorted(workspace.iterdir())
        if path.suffix == ".md" and "AUTH_TOKEN=" in path.read_text()
    ]
    token = find_token(texts[-1], section=False)
    assert token
    return token


@pytest.fixture
def ann(scene: Scene) -> UUID:
    agent = scene.agent("Ann", soul_template="I am {{ agent_name }}.\n\n- Calm.")
    scene.execute(
        "INSERT INTO provisioner.agent_settings (scope, target_id, field, value)"
        " VALUES ('agent', :id, 'skills', '[\"diary\"]')",
        id=agent,
    )
    scene.provision(agent)
    return agent


def test_a_deleted_agent_is_restored_with_what_it_wrote_and_a_new_token(scene: Scene, ann: UUID) -> None:
    workspace = folder(scene, ann)
    before = scene.row("SELECT * FROM agents WHERE id = :id", id=ann)
    first = token_of(workspace)
    (workspace / "MEMORY.md").write_text("Months of notes.\n")
    agents_md = workspace / "AGENTS.md"
    agents_md.write_text(agents_md.read_text().replace("\n", f"\n{NOTE}\n", 1))
    (workspace / "BOOTSTRAP.md").unlink(missing_ok=True)
    (workspace / "notes").mkdir()
    (workspace / "notes" / "monday.txt").write_text("Rain.")

    gone = done(scene, "delete_agent", ann)
    assert gone.warnings == []
    bundle = bundle_of(scene, ann)
    assert gone.result["bundle"]
    assert bundle.whole
    assert bundle.text("MEMORY.md") == "Months of notes.\n"
    shows_folders = scene.simulator.release.roster_is_map
    assert (bundle.text("notes/monday.txt") == "Rain.") is shows_folders
    left = {one.what: one.why for one in bundle.left_out}
    assert ("this release shows eight files" in str(left)) is not shows_folders
    tar = to_tar(bundle)
    assert first.encode() not in tar
    assert b"agent_token_hash" not in tar
    assert not workspace.exists()

    scene.execute("UPDATE boards SET objective = 'A new aim.'")
    job = done(scene, "restore_agent", ann, wake=False)
    row = scene.row("SELECT * FROM agents WHERE id = :id", id=ann)
    same = ("id", "name", "board_id", "soul_template", "created_at", "is_board_lead")
    assert {name: getattr(row, name) for name in same} == {name: getattr(before, name) for name in same}
    assert row.status == "online"
    second = token_of(workspace)
    assert second != first
    assert verify_token(second, row.agent_token_hash)
    assert (workspace / "MEMORY.md").read_text() == "Months of notes.\n"
    assert NOTE in (workspace / "AGENTS.md").read_text()
    # 2026.9.6 makes default files where a deleted id comes back, and takes this one away at the first run.
    assert (workspace / "BOOTSTRAP.md").exists() is shows_folders
    assert job.result["files"]["BOOTSTRAP.md"]["action"] == "preserved"
    assert (workspace / "SOUL.md").read_text() == "I am Ann.\n\n- Calm."
    entry = scene.simulator.agents()[f"mc-{ann}"]
    assert entry["skills"] == ["diary"]
    missing = {one["what"] for one in job.result["not_restored"]}
    assert ("notes/monday.txt" in missing) is shows_folders

    scene.execute("UPDATE agents SET identity_profile = jsonb_build_object('communication_style', 'terse')")
    again = scene.sync(include_main=False)
    assert again.status == "succeeded", again.error
    assert NOTE in (workspace / "AGENTS.md").read_text()
    assert (workspace / "MEMORY.md").read_text() == "Months of notes.\n"
    dry = scene.sync(dry_run=True, include_main=False)
    actions = {file["action"] for file in scene.rows(dry.id)["Ann"].files.values()}
    assert actions <= {"unchanged", "preserved", "unsupported"}


def test_nothing_that_looks_like_a_secret_is_kept_and_marks_are_not_written_back(
    scene: Scene, ann: UUID
) -> None:
    workspace = folder(scene, ann)
    secret = "sk-proj-8yT2kQ9wLm4XzR7vBn3JcP6d"
    (workspace / "MEMORY.md").write_text(f"OPENAI_API_KEY={secret}\nRain.\n")
    (workspace / "USER.md").write_text(f"My token is {token_of(workspace)}, keep it.\n")
    scene.execute("UPDATE agents SET soul_template = :text", text=f"api_key: {secret}")
    deleted = done(scene, "delete_agent", ann)
    assert any(
        "masked in its bundle, in MEMORY.md, USER.md, column soul_template" in warning
        for warning in deleted.warnings
    )
    bundle = bundle_of(scene, ann)
    assert secret.encode() not in to_tar(bundle)
    assert {"MEMORY.md", "USER.md", "column soul_template"} <= bundle.masked
    job = done(scene, "restore_agent", ann, wake=False)
    assert "masked" not in (workspace / "MEMORY.md").read_text()
    assert "Rain." not in (workspace / "MEMORY.md").read_text()
    assert scene.row("SELECT soul_template FROM agents").soul_template is None
    unwritten = [one["what"] for one in job.result["not_restored"] if "masked" in one["why"]]
    assert unwritten == ["MEMORY.md", "USER.md"]
    assert any(warning.startswith("Column soul_template was not restored") for warning in job.warnings)

    bundles = [one for one in _all(scene) if one.reason == "delete"]
    done(scene, "delete_agent", ann, without_bundle=True)
    assert [one.id for one in _all(scene)] == [one.id for one in bundles]
    done(scene, "restore_agent", ann, wake=False, allow_masked=True, bundle_id=bundles[0].id)
    assert (workspace / "MEMORY.md").read_text() == "OPENAI_API_KEY=<masked>\nRain.\n"


def _all(scene: Scene) -> Any:
    with scene.engine.connect() as connection:
        return all_bundles(connection)


@on_one_release
def test_with_a_key_all_of_it_is_kept_and_no_other_key_opens_it(
    scene: Scene, ann: UUID, hands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic import SecretStr

    scene.services = hands(retry_inline_s=5, bundle_key=SecretStr(KEY))
    workspace = folder(scene, ann)
    text_of_secret = "OPENAI_API_KEY=sk-proj-8yT2kQ9wLm4XzR7vBn3JcP6d\n"
    (workspace / "MEMORY.md").write_text(text_of_secret)
    (workspace / "map.png").write_bytes(b"\x89PNG\xff\xfe")
    (workspace / "blob.bin").write_bytes(b"\xff\xfe")
    token = token_of(workspace)
    others = f"AUTH_TOKEN=of-another-program\nThe gateway's is {scene.simulator.token}, mine {token}.\n"
    another = mint_token()  # which we know by its hash alone
    others += f"Bob's is {another}.\n"
    (workspace / "USER.md").write_text(others)
    (workspace / "IDENTITY.md").write_text(f"I am Ann, and my token is {token}.\n")
    job = done(scene, "export_agent", ann)
    assert scene.row("SELECT status FROM agents").status == "online"
    bundle = bundle_of(scene, ann, KEY)
    assert bundle.text("MEMORY.md") == text_of_secret
    assert bundle.files["map.png"] == b"\x89PNG\xff\xfe"
    tar = to_tar(bundle)
    for each in (token, "of-another-program", scene.simulator.token, another):
        assert each.encode() not in tar
    assert bundle.masked == {"USER.md", "IDENTITY.md"}
    body = scene.row("SELECT body FROM provisioner.agent_bundles").body
    assert b"OPENAI" not in bytes(body)
    for keys, says in (((), "is encrypted: set BUNDLE_KEY"), (("x" * 32,), "cannot be decrypted")):
        with pytest.raises(Exception, match=says):
            bundle_of(scene, ann, *keys)
    assert "blob.bin" in {one.what for one in bundle.left_out}

    done(scene, "delete_agent", ann)
    restored = done(scene, "restore_agent", ann, wake=False)
    assert (workspace / "MEMORY.md").read_text() == text_of_secret
    assert job.result["openclaw_id"] == f"mc-{ann}"
    masked = {one["what"] for one in restored.result["not_restored"] if "masked" in one["why"]}
    assert masked == {"USER.md", "IDENTITY.md"}
    done(scene, "delete_agent", ann, without_bundle=True)
    done(scene, "restore_agent", ann, wake=False, allow_masked=True, bundle_id=restored.result["bundle"])
    assert (workspace / "IDENTITY.md").read_text() == "I am Ann, and my token is <masked>.\n"


def test_what_is_in_the_way_is_said_and_nothing_is_half_done(scene: Scene, ann: UUID) -> None:
    done(scene, "export_agent", ann)
    assert "is there, so nothing was restored" in run_failed(scene, ann)
    done(scene, "delete_agent", ann)
    board = scene.fleet.board_id
    scene.execute("UPDATE boards SET gateway_id = NULL")
    assert "has no gateway" in run_failed(scene, ann)
    scene.execute("UPDATE boards SET gateway_id = :id", id=scene.fleet.gateway_id)
    scene.execute("DELETE FROM boards WHERE id = :id", id=board)
    says = run_failed(scene, ann)
    assert f"because its board 'Launch' ({board}) is gone: `provisioner agent export`" in says
    assert scene.row("SELECT count(*) AS n FROM agents").n == 0
    assert "There is no bundle of agent" in run_failed(scene, uuid4())
    scene.execute("UPDATE provisioner.agent_bundles SET expires_at = now() - interval '1 s'")
    assert "There is no bundle of agent" in run_failed(scene, ann)
    with scene.engine.begin() as connection:
        assert (forget_bundles(connection, dry_run=True), forget_bundles(connection)) == (2, 2)


def run_failed(scene: Scene, agent_id: UUID) -> str:
    job = run(scene, "restore_agent", agent_id)
    assert job.status == "failed"
    return str(job.error)


def test_text_of_the_owners_that_stands_there_is_not_written_over(scene: Scene, ann: UUID) -> None:
    workspace = folder(scene, ann)
    (workspace / "SOUL.md").write_text("I am calm.")
    (workspace / "MEMORY.md").write_text("Notes.\n")
    done(scene, "delete_agent", ann, delete_files=False)
    carrier = "AGENTS.md" if scene.simulator.release.roster_is_map else "TOOLS.md"
    (workspace / "SOUL.md").write_text("The owner's words.")
    (workspace / carrier).write_text("The owner's carrier.\n")
    for name in ("SOUL.md", carrier):  # gateways write default files of their own during the job
        os.utime(workspace / name, (time.time() - 3600,) * 2)
    job = done(scene, "restore_agent", ann, wake=False)
    assert (workspace / "SOUL.md").read_text() == "The owner's words."
    assert (workspace / "MEMORY.md").read_text() == "Notes.\n"
    assert (workspace / carrier).read_text().startswith("The owner's carrier.\n")
    assert token_of(workspace)
    named = [warning.split()[0] for warning in job.warnings if "another text stands there" in warning]
    assert named == [carrier, "SOUL.md"]
    scene.sync(include_main=False)
    assert (workspace / "SOUL.md").read_text() == "The owner's words."


def test_a_delete_that_is_asked_for_again_keeps_the_better_bundle(scene: Scene, ann: UUID) -> None:
    scene.execute(
        "CREATE TABLE IF NOT EXISTS holds_on (agent_id uuid REFERENCES agents (id));"
        f"INSERT INTO holds_on VALUES ('{ann}')"
    )
    try:
        assert "still referenced from holds_on" in run(scene, "delete_agent", ann).error
        scene.execute("DROP TABLE holds_on")
        job = done(scene, "delete_agent", ann)
    finally:
        scene.execute("DROP TABLE IF EXISTS holds_on")
    [bundle] = _all(scene)
    assert bundle.whole
    assert f"Its files cannot be read any more: bundle {bundle.id}" in job.warnings[0]
    done(scene, "restore_agent", ann, wake=False)


@on_one_release
def test_rows_alone_are_kept_of_an_agent_that_its_gateway_does_not_know(scene: Scene, ann: UUID) -> None:
    document = json.loads(scene.simulator.config_path.read_text())
    del document["agents"]["entries"][f"mc-{ann}"]
    save(scene.simulator.config_path.parent, "openclaw.json", document)
    job = done(scene, "delete_agent", ann)
    assert job.warnings == [
        "Its bundle holds its rows alone, and none of its files: its gateway has no such agent."
    ]
    [stored] = _all(scene)
    assert (stored.whole, stored.manifest["files"]) == (False, {})
    done(scene, "restore_agent", ann, wake=False)
    assert scene.row("SELECT name FROM agents").name == "Ann"


def test_a_bundle_becomes_a_new_agent_of_another_board(scene: Scene, ann: UUID) -> None:
    lead = scene.agent("Boss", lead=True)
    scene.provision(lead)
    (folder(scene, lead) / "MEMORY.md").write_text("Notes.\n")
    done(scene, "export_agent", lead)
    new, other = uuid4(), scene.fleet.add_board("Second")
    imported = read_tar(to_tar(bundle_of(scene, lead)))
    with scene.engine.begin() as connection:
        keep(connection, new, imported, "import", ())
    job = done(scene, "restore_agent", new, board_id=other, wake=False)
    row = scene.row("SELECT * FROM agents WHERE id = :id", id=new)
    assert (row.name, row.board_id, row.is_board_lead) == ("Boss", other, False)
    assert (folder(scene, new) / "MEMORY.md").read_text() == "Notes.\n"
    assert str(other) in (folder(scene, new) / "AGENTS.md").read_text() + token_file(scene, new)
    assert "joins this one as a member" in " ".join(job.warnings)
    assert token_of(folder(scene, new)) != token_of(folder(scene, lead))


def token_file(scene: Scene, agent_id: UUID) -> str:
    file = folder(scene, agent_id) / "TOOLS.md"
    return file.read_text() if file.exists() else ""


@on_one_release
def test_no_row_is_made_of_an_agent_that_cannot_be_rendered(scene: Scene) -> None:
    bob = scene.agent("Bob", soul_template="I am {{ agent_name }}.")
    scene.provision(bob)
    scene.execute("UPDATE agents SET soul_template = '{{ nothing.such }}' WHERE id = :id", id=bob)
    done(scene, "delete_agent", bob)
    assert "The SOUL.md override, line 1" in run_failed(scene, bob)
    assert scene.row("SELECT count(*) AS n FROM agents").n == 0
    assert scene.row("SELECT count(*) AS n FROM provisioner.agent_settings").n == 0


@on_one_release
def test_a_restoration_that_failed_half_way_is_run_again(scene: Scene, ann: UUID) -> None:
    workspace = folder(scene, ann)
    (workspace / "MEMORY.md").write_text("Notes.\n")
    done(scene, "delete_agent", ann)
    workspace.mkdir(parents=True)
    (workspace / "AGENTS.md").mkdir()
    job = run(scene, "restore_agent", ann, wake=False)
    assert job.status == "failed"
    assert scene.row("SELECT agent_token_hash FROM agents").agent_token_hash is None
    (workspace / "AGENTS.md").rmdir()
    done(scene, "restore_agent", ann, wake=False)
    assert (workspace / "MEMORY.md").read_text() == "Notes.\n"
    with scene.engine.connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM provisioner.agent_settings")).scalar_one()
    assert rows == 1


@on_one_release
def test_what_does_not_fit_is_listed_and_so_is_what_is_left_out(
    scene: Scene, ann: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_reading, "MOST_BYTES", 40_000)
    workspace = folder(scene, ann)
    (workspace / "a").mkdir()
    (workspace / "a" / "long.txt").write_text("x" * 39_000)
    (workspace / "a" / "short.txt").write_text("y")
    (workspace / ".git").mkdir()
    (workspace / ".git" / "HEAD").write_text("ref")
    scene.execute(
        "INSERT INTO provisioner.template_promotions (scope, target_id, name, version, promoted_by)"
        " VALUES ('agent', :id, 'SOUL.md', NULL, 'x')",
        id=str(ann),
    )
    done(scene, "export_agent", ann)
    bundle = bundle_of(scene, ann)
    assert bundle.text("a/short.txt") == "y"
    left = {one.what: one.why for one in bundle.left_out}
    assert left["a/long.txt"].startswith("its 39000 bytes do not fit")
    assert left[".git/"] == "it is what git keeps"
    assert left["its own template of SOUL.md"] == "layers of templates stay where they are"
    monkeypatch.setattr(workspace_reading, "READING_S", -1.0)
    done(scene, "export_agent", ann)
    with scene.engine.connect() as connection:
        newest = all_bundles(connection)[0]
    late = [one for one in newest.manifest["left_out"] if "no time to read it" in one["why"]]
    assert late
    assert "AGENTS.md" in newest.manifest["files"]


def test_an_adopted_agent_comes_back_under_an_id_of_ours(scene: Scene) -> None:
    own = scene.simulator.state_dir / "own" / "research"
    own.mkdir(parents=True)
    (own / "AGENTS.md").write_text("Mine.")
    (own / "MEMORY.md").write_text("Notes.\n")
    document = json.loads(scene.simulator.config_path.read_text())
    if scene.simulator.release.roster_is_map:
        document["agents"] = {
            "ownership": "explicit",
            "entries": {"main": {}, "research": {"workspace": str(own)}},
        }
    else:
        document["agents"] = {"list": [{"id": "main"}, {"id": "research", "workspace": str(own)}]}
    save(scene.simulator.config_path.parent, "openclaw.json", document)
    adopted = scene.ask(
        "adopt_agent",
        gateway_id=scene.fleet.gateway_id,
        openclaw_id="research",
        board_id=scene.fleet.board_id,
        dry_run=False,
    )
    scene.serve()
    agent = UUID(str(scene.job(adopted).result["agent_id"]))
    done(scene, "delete_agent", agent)
    assert "AUTH_TOKEN=" in (own / "AGENTS.md").read_text() + token_in(own)
    job = done(scene, "restore_agent", agent, wake=False)
    assert f"It was research on its gateway, and is mc-{agent} now." in job.warnings
    assert (folder(scene, agent) / "MEMORY.md").read_text() == "Notes.\n"
    assert "Mine." in (folder(scene, agent) / "AGENTS.md").read_text()


def token_in(workspace: Path) -> str:
    file = workspace / "TOOLS.md"
    return file.read_text() if file.exists() else ""


def test_a_bundle_goes_to_a_gateway_of_the_other_family(scene: Scene, ann: UUID, tmp_path: Path) -> None:
    workspace = folder(scene, ann)
    agents_md = workspace / "AGENTS.md"
    agents_md.write_text(agents_md.read_text().replace("\n", f"\n{NOTE}\n", 1))
    (workspace / "MEMORY.md").write_text("Notes.\n")
    token = token_of(workspace)
    done(scene, "export_agent", ann)
    release = "2026.2.12" if scene.simulator.release.roster_is_map else "2026.9.6"
    new = uuid4()
    with Simulator(release, token="other-token", state_dir=tmp_path / "other") as other:
        root = str(other.state_dir / "ws")
        gateway = scene.fleet.add_gateway("other", other.url, other.token, root)
        board = scene.fleet.add_board("There", gateway_id=gateway)
        with scene.engine.begin() as connection:
            keep(connection, new, read_tar(to_tar(bundle_of(scene, ann))), "import", ())
        done(scene, "restore_agent", new, board_id=board, wake=False)
        there = other.workspace(f"mc-{new}")
        text_of_agents = (there / "AGENTS.md").read_text()
        assert NOTE in text_of_agents
        assert text_of_agents.count("## Tools") == (release == "2026.9.6")
        assert (there / "MEMORY.md").read_text() == "Notes.\n"
        assert PLACEHOLDER not in "".join(path.read_text() for path in there.glob("*.md"))
        assert token_of(there) != token
        job = scene.ask("sync_gateway", gateway_id=gateway, include_main=False)
        scene.serve()
        assert scene.job(job).result["files_written"] == 0
