"""adopt: what it shows, what it does, and how it says no; a worker process serves it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cli.conftest import Provisioner
from tests.owners_files import save
from worker.lab.simulator import Simulator

GATEWAY = "gateway of Ada"


def owners(simulator: Simulator, *names: str) -> dict[str, Path]:
    """Agents of the gateway's owner, each with a file."""
    folders = {name: simulator.state_dir / "own" / name for name in names}
    document = json.loads(simulator.config_path.read_text())
    entries = {name: {"workspace": str(folder)} for name, folder in folders.items()}
    document["agents"] = {"ownership": "explicit", "entries": {"main": {}, **entries}}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "AGENTS.md").write_text("Mine.")
    save(simulator.config_path.parent, "openclaw.json", document)
    return folders


def test_it_only_looks_until_yes_is_said_and_says_what_it_would_do(
    staffed: Provisioner, simulator: Simulator
) -> None:
    folders = owners(simulator, "research", "shop")
    look = staffed.run("adopt", GATEWAY, "research", "--board", "Board Ada", "--diff", "--no-wait")
    job = staffed.run("job", look.stdout.strip(), "--watch").stdout
    assert "plan for research" in job
    page = job.split("\nAGENTS.md\n")[0]
    lines = {line.split()[0]: line for line in page.splitlines() if line.strip()}
    assert ("update" in lines["AGENTS.md"], "absent" in lines["SOUL.md"]) == (True, True)
    assert "ours alone: a sync creates it" in lines["SOUL.md"]
    assert "+## Tools" in job
    words = " ".join(job.split())
    assert f'do it provisioner adopt "{GATEWAY}" research --board "Board Ada" --yes' in words

    whole = staffed.run("adopt", GATEWAY, "--board", "Board Ada", "--overwrite-file", "SOUL.md")
    assert whole.exit_code == 0, whole.output
    assert {"main", "research", "shop"} <= {line.split()[0] for line in whole.stdout.splitlines() if line}
    again = f'provisioner adopt "{GATEWAY}" --board "Board Ada" --overwrite-file "SOUL.md" --yes'
    assert again in " ".join(whole.stdout.split())
    assert [(folder / "AGENTS.md").read_text() for folder in folders.values()] == ["Mine.", "Mine."]

    done = staffed.json("adopt", GATEWAY, "research", "--board", "Board Ada", "--yes")
    assert (done["status"], done["result"]["token"], done["options"]["dry_run"]) == (
        "succeeded",
        "minted",
        False,
    )
    assert (folders["research"] / "AGENTS.md").read_text().startswith("Mine.\n\n## Tools")
    page = staffed.run("job", done["id"]).stdout
    assert ("adopt agent research" in page, "research on the gateway" in page) == (True, True)

    (folders["shop"] / "AGENTS.md").write_text("AUTH_TOKEN=of-another-program\n")
    refused = staffed.run("adopt", GATEWAY, "--board", "Board Ada")
    below = refused.stdout.partition("Theirs")[2]
    assert (refused.exit_code, "have the whole file replaced with --overwrite-file AGENTS.md." in below) == (
        1,
        True,
    )
    assert "shop: Agent 'shop' cannot be given its token" in below
    (folders["shop"] / "AGENTS.md").write_text("Mine.")

    rest = staffed.json("adopt", GATEWAY, "--board", "Board Ada", "--yes")
    assert rest["result"]["in_care"] == ["research"]
    assert [(one["status"], one["agents"][0]["name"]) for one in rest["adoptions"]] == [
        ("succeeded", "main"),
        ("succeeded", "shop"),
    ]
    assert "is under care already" in staffed.run("adopt", GATEWAY, "--board", "Board Ada").stdout
    taken = staffed.run("adopt", GATEWAY, "shop", "--agent", "Ada")
    assert taken.exit_code == 1
    assert "Gateway 'gateway of Ada' has shop as agent 'shop'" in " ".join(taken.stdout.split())


def test_what_was_typed_wrong_is_said_before_a_job_is_made(staffed: Provisioner) -> None:
    assert "Give --agent for the agent that it becomes" in staffed.refused("adopt", GATEWAY, "research")
    both = staffed.refused("adopt", GATEWAY, "research", "--agent", "Ada", "--board", "Board Ada")
    assert "Give --agent for the agent that it becomes" in both
    assert "name it on the gateway too" in staffed.refused("adopt", GATEWAY, "--agent", "Ada")
    assert staffed.json("jobs") == []
