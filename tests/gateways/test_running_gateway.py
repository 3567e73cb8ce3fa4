"""A real gateway under our care: ready means ready, and it is gone when its owner is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateways.stub_model import StubModel
from tests.integration.local.processes import command_line, descendants, environment, wait_until_gone
from worker.openclaw import GatewayNotReady, Installed, RunningGateway

pytestmark = pytest.mark.openclaw
ROOT = Path(__file__).parents[2]

OWNER = """
import signal, sys, threading
from pathlib import Path
from worker.openclaw import OpenClaw, RunningGateway
gateway = RunningGateway(OpenClaw.install(sys.argv[1]), Path(sys.argv[2]))
thread = threading.Thread(target=gateway.start)
thread.start()
thread.join()
print(gateway.pid, flush=True)
signal.pause()
"""


def test_it_keeps_its_token_and_port_from_start_to_start(
    openclaw: RunningGateway, installed_openclaw: Installed
) -> None:
    openclaw.start()
    first_pid, url = openclaw.pid, openclaw.url
    config = json.loads(openclaw.config_path.read_text())
    assert config["gateway"]["auth"]["token"] == openclaw.token
    openclaw.kill()
    assert not openclaw.running
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", openclaw.port), timeout=5),
    ):
        pass
    openclaw.restart()
    assert openclaw.running
    assert openclaw.url == url
    assert openclaw.pid != first_pid
    elsewhere = RunningGateway(installed_openclaw, openclaw.config_path.parent)
    assert (elsewhere.token, elsewhere.port) == (openclaw.token, openclaw.port)


def test_it_sees_no_secret_of_ours_and_shows_none_of_its_own(
    openclaw: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u:not-for-openclaw@127.0.0.1/x")
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-openclaw")
    openclaw.start()
    for process in {openclaw.pid} | {process.pid for process in descendants(openclaw.pid)}:
        assert "not-for-openclaw" not in environment(process)
        assert openclaw.token not in environment(process)
        assert openclaw.token not in command_line(process)
    assert f"HOME={openclaw.config_path.parent}" in environment(openclaw.pid)
    assert openclaw.token not in repr(openclaw)
    assert openclaw.config_path.stat().st_mode & 0o777 == 0o600


def test_it_ends_with_an_owner_that_is_killed(installed_openclaw: Installed, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", OWNER, installed_openclaw.release, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        try:
            assert owner.stdout is not None
            gateway = int(owner.stdout.readline())
            below = descendants(owner.pid)
            assert gateway in {process.pid for process in below}
        finally:
            os.kill(owner.pid, signal.SIGKILL)
        wait_until_gone(below, 15)


def test_a_configuration_that_it_refuses_is_told_with_its_log(
    installed_openclaw: Installed, tmp_path: Path
) -> None:
    gateway = RunningGateway(installed_openclaw, tmp_path, config_extra={"no-such-key": 1})
    with pytest.raises(GatewayNotReady, match=r"(?s)ended with code \d+\. Its log ends:\n.*no-such-key"):
        gateway.start()
    assert not gateway.running


def test_the_stub_model_is_its_only_model(installed_openclaw: Installed, tmp_path: Path) -> None:
    with StubModel(answer="all is well") as model:
        gateway = RunningGateway(installed_openclaw, tmp_path, config_extra=model.config)
        with gateway:
            done = subprocess.run(
                [
                    str(installed_openclaw.node),
                    str(installed_openclaw.script),
                    "agent",
                    "--agent",
                    "main",
                    "-m",
                    "hello you",
                    "--json",
                ],
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
                env={
                    "PATH": os.defpath,
                    "HOME": str(tmp_path / "home"),
                    "OPENCLAW_STATE_DIR": str(tmp_path),
                    "OPENCLAW_CONFIG_PATH": str(gateway.config_path),
                    "NO_COLOR": "1",
                },
            )
            assert "all is well" in done.stdout, done.stderr
            assert "hello you" in model.wait_for(lambda request: "hello you" in request.text, 5).text
