"""bundles, restore, agent export and agent import, as an operator runs them; a worker process serves them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Provisioner
from worker.lab.simulator import Simulator
from worker.workspace.bundle import read_tar


def export(provisioner: Provisioner, *arguments: str) -> tuple[bytes, str]:
    result = provisioner.run("agent", "export", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout_bytes, result.stderr


def test_an_agent_is_exported_deleted_restored_and_imported_elsewhere(
    staffed: Provisioner, simulator: Simulator, tmp_path: Path
) -> None:
    assert staffed.run("provision", "Ada", "--no-wake").exit_code == 0
    [key] = [name for name in simulator.agents() if name.startswith("mc-")]
    workspace = simulator.workspace(key)
    (workspace / "MEMORY.md").write_text("Months of notes.\n")
    (workspace / "USER.md").write_text("Ada's password is hunter2-hunter2-hunter2.\n")
    tar, says = export(staffed, "Ada")
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        assert opened.getnames()[0] == "manifest.json"
    assert read_tar(tar).text("MEMORY.md") == "Months of notes.\n"
    assert "Not in it: its sessions: no release lets one put a conversation back." in says

    gone = staffed.run("delete", "Ada", "--yes")
    assert gone.exit_code == 0, gone.output
    assert "A bundle of it is kept for 30 days: its row, and" in " ".join(gone.stderr.split())
    listed = staffed.json("bundles")
    assert [(one["agent_name"], one["reason"], one["whole"]) for one in listed] == [
        ("Ada", "delete", True),
        ("Ada", "export", True),
    ]
    assert "Ada" in staffed.run("bundles").stdout
    assert export(staffed, "Ada", "--bundle", listed[0]["id"][:8])[0] == export(staffed, "Ada")[0]

    back = staffed.run("restore", "Ada", "--no-wake")
    assert back.exit_code == 0, back.output
    says = " ".join(back.stdout.split())
    assert "not restored USER.md: a secret in it was masked: --allow-masked restores it with the mark" in says
    assert (workspace / "MEMORY.md").read_text() == "Months of notes.\n"
    again = staffed.run("restore", "Ada")
    assert again.exit_code == 1
    assert "is there, so nothing was restored" in " ".join(again.output.split())

    file = tmp_path / "ada.tar"
    file.write_bytes(tar)
    other = staffed.json("agent", "import", str(file), "--board", "Board Ada", "--no-wake")
    assert (other["status"], other["agent_id"] != listed[0]["agent_id"]) == ("succeeded", True)
    assert len([name for name in simulator.agents() if name.startswith("mc-")]) == 2


def test_what_of_a_bundle_is_not_restored_is_on_the_page(staffed: Provisioner, simulator: Simulator) -> None:
    assert staffed.run("provision", "Ada", "--no-wake").exit_code == 0
    [key] = [name for name in simulator.agents() if name.startswith("mc-")]
    workspace = simulator.workspace(key)
    (workspace / "MEMORY.md").write_text("The key is sk-proj-8yT2kQ9wLm4XzR7vBn3JcP6d.\n")
    (workspace / "notes.txt").write_text("Rain.\n")
    for folder, count in (("attachments", 500), ("memory", 1)):  # the notes are kept before whatever else
        (workspace / folder).mkdir(exist_ok=True)
        for number in range(count):
            (workspace / folder / f"{number}.md").write_text(str(number))
    gone = staffed.run("delete", "Ada", "--yes").stdout
    [kept] = staffed.json("bundles")
    assert f"bundle     {kept['id'][:8]}, kept for 30 days" in gone
    assert "memory/0.md" in [one["path"] for one in kept["files"]]
    assert "MEMORY.md (masked)" in " ".join(staffed.run("bundles").stdout.split())
    staffed.json("agent", "add", "Ada", "--board", "Board Ada")  # another one, who has taken her name
    page = " ".join(staffed.run("restore", "Ada", "--no-wake").stdout.split())
    assert "not restored MEMORY.md: a secret in it was masked: --allow-masked restores it" in page
    assert "notes.txt: this gateway takes no file of that name" in page
    assert page.count("gateways take only the text files") == page.count("500 files at most") == 1


def test_what_cannot_be_is_said_in_a_sentence(staffed: Provisioner, tmp_path: Path) -> None:
    assert staffed.refused("agent", "export", "Nobody").startswith("There is no agent 'Nobody'")
    assert "There is no agent 'Nobody'" in staffed.refused("restore", "Nobody")
    assert "There is no bundle 'abcd'" in staffed.refused("restore", "Ada", "--bundle", "abcd")
    assert "There is no bundle 'abcd'" in staffed.refused("agent", "export", "Ada", "--bundle", "abcd")
    nothing = tmp_path / "nothing.tar"
    assert "cannot be read: No such file" in staffed.refused(
        "agent", "import", str(nothing), "--board", "Board Ada"
    )
    nothing.write_bytes(b"no tar")
    says = staffed.refused("agent", "import", str(nothing), "--board", "Board Ada")
    assert "The file is no tar that could be read" in says
    assert staffed.json("jobs") == []
    assert staffed.json("bundles") == []
    assert staffed.run("bundles").stdout.startswith("No bundle is kept")


def test_a_bundle_of_another_organization_comes_only_if_that_is_meant(
    staffed: Provisioner, tmp_path: Path
) -> None:
    from dataclasses import replace

    from worker.workspace.bundle import Bundle, to_tar

    file = tmp_path / "theirs.tar"
    bundle = Bundle({"id": "x", "name": "Eve", "organization_id": "elsewhere"}, {"name": "Eve"}, whole=True)
    file.write_bytes(to_tar(replace(bundle, files={"MEMORY.md": b"Hers.\n"})))
    arguments = ("agent", "import", str(file), "--board", "Board Ada", "--no-wake")
    assert "give --foreign too" in staffed.refused(*arguments)
    done = staffed.json(*arguments, "--foreign")
    assert (done["status"], done["agents"][0]["name"]) == ("succeeded", "Eve")


def test_a_tar_is_not_written_to_a_terminal(staffed: Provisioner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.cli.commands.bundles.is_terminal", lambda: True)
    assert "A tar is not for a terminal" in staffed.refused("agent", "export", "Ada")
