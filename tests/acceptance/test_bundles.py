"""An agent that was deleted comes back with what it had written, and is carried elsewhere in a file (rules.md
52), by the commands that an operator types."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.acceptance.world import Settled, World
from tests.integration.cli.conftest import Provisioner
from worker.workspace.bundle import read_tar
from worker.workspace.tokens import verify_token

NOTE = "You never call Ada before nine."
MEMORY = "The release is on Friday.\n"


def _written(world: World, agent: Settled) -> dict[str, str | None]:
    return {name: world.read(agent.openclaw_id, name) for name in ("SOUL.md", "MEMORY.md", "IDENTITY.md")}


def _token(world: World, agent: Settled) -> str:
    """The token in its workspace, which its row verifies."""
    token = world.token(agent.openclaw_id)
    assert token is not None
    assert verify_token(token, world.agent(agent.agent_id)["agent_token_hash"])
    return token


def test_a_deleted_agent_is_restored_with_its_memory_and_imported_as_another(
    world: World, tmp_path: Path
) -> None:
    operator = Provisioner(world.settings["DATABASE_URL"], Path(world.settings["GATEWAY_DEVICE_KEY"]))
    agent = world.take()
    key = str(agent.agent_id)
    soul = str(world.read(agent.openclaw_id, "SOUL.md"))
    world.write(agent.openclaw_id, MEMORY=MEMORY, SOUL=f"{soul}\n{NOTE}\n")
    before, old = _written(world, agent), _token(world, agent)
    exported = operator.run("agent", "export", key)
    assert exported.exit_code == 0, exported.output
    tar = tmp_path / "settler.tar"
    tar.write_bytes(exported.stdout_bytes)

    deleted = operator.json("delete", key, "--yes")
    assert deleted["result"]["removed"] is True, deleted
    assert agent.openclaw_id not in world.roster()
    restored: Any = operator.json("restore", key, "--no-wake")
    assert restored["result"]["openclaw_id"] == agent.openclaw_id
    assert _written(world, agent) == before
    new = _token(world, agent)
    assert new != old

    imported = operator.json("agent", "import", str(tar), "--board", str(world.fleet.board_id), "--no-wake")
    other = Settled(UUID(imported["agent_id"]), imported["result"]["openclaw_id"])
    assert _written(world, other) == before
    assert _token(world, other) not in (old, new)
    assert _token(world, agent) == new

    held = [tar.read_bytes(), *(body for body in read_tar(tar.read_bytes()).files.values())]
    assert not [body for body in held if old.encode() in body]
    with world.engine.connect() as connection:
        bodies = connection.execute(text("SELECT body FROM provisioner.agent_bundles")).scalars().all()
    assert bodies
    assert not [body for body in bodies if old.encode() in zlib.decompress(bytes(body))]
    operator.json("delete", str(other.agent_id), "--yes")
