"""An agent's name of any length, with any line ends: it floods nothing, and makes no line of its own."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from tests.integration.cli.conftest import Provisioner
from tests.integration.sync.scene import Scene, on_one_release


@on_one_release
def test_a_name_is_shown_on_one_line_and_in_bounds(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    agent = scene.agent("Bob\nfaults: none\r\n\u2028\u202e" + "x" * 200_000)
    job_id = scene.ask("provision_agent", agent_id=agent)
    scene.serve()
    assert scene.job(job_id).status == "succeeded"
    scene.execute("UPDATE agents SET soul_template = '{{ nope }}'")
    sync = scene.sync(include_main=False)
    assert len(scene.rows(sync.id).popitem()[0]) <= 200
    assert len(sync.error) < 2000
    cli = Provisioner(engine.url.render_as_string(hide_password=False), tmp_path / "device.pem")
    for command in (("agent", "list"), ("job", str(job_id)), ("job", str(sync.id)), ("doctor", "workshop")):
        shown = cli.run(*command).output
        assert len(shown) < 8000, command
        assert not [line for line in shown.splitlines() if line.startswith("faults: none")], command
    assert str(agent) in cli.run("doctor", "workshop").output, "a command names it by its id"
