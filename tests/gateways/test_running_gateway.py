"""A real gateway under our care: ready means ready, and it is gone when its owner is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.peer import meet_when_up
from tests.conformance.steps import eventually
from tests.gateways.stub_model import StubModel
from tests.integration.lab.servers.processes import command_line, descendants, environment, wait_until_gone
from worker.lab.openclaw import GatewayNotReady, Installed, RunningGateway
from worker.lab.openclaw.supervisor import AGAIN_AFTER_S

pytestmark = pytest.mark.openclaw
ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0

OWNER = """
import signal, sys, threading
from pathlib import Path
from worker.lab.openclaw import OpenClaw, RunningGateway
gateway = RunningGateway(OpenClaw.install(sys.argv[1]), Path(sys.argv[2]))
thread = threading.Thread(target=gateway.start)
thread.start()
thread.join()
print(gateway.pid, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def model() -> Iterator[StubModel]:
    with StubModel(answer="all is well") as model:
        yield model


@pytest.fixture(scope="module")
def gateway(
    installed_openclaw: Installed, tmp_path_factory: pytest.TempPathFactory, model: StubModel
) -> Iterator[RunningGateway]:
    """A supervised one, started while our environment holds secrets."""
    folder = tmp_path_factory.mktemp("gateway")
    gateway = RunningGateway(installed_openclaw, folder, config_extra=model.config, supervised=True)
    with pytest.MonkeyPatch.context() as ours:
        ours.setenv("DATABASE_URL", "postgresql+psycopg://u:not-for-openclaw@127.0.0.1/x")
        ours.setenv("OPENAI_API_KEY", "not-for-openclaw")
        gateway.start()
    yield gateway
    gateway.stop()


def test_it_sees_no_secret_of_ours_and_shows_none_of_its_own(gateway: RunningGateway) -> None:
    for process in {gateway.pid} | {process.pid for process in descendants(gateway.pid)}:
        assert "not-for-openclaw" not in environment(process)
        assert gateway.token not in environment(process)
        assert gateway.token not in command_line(process)
    assert f"HOME={gateway.config_path.parent}" in environment(gateway.pid)
    assert gateway.token not in repr(gateway)
    assert gateway.config_path.stat().st_mode & 0o777 == 0o600


def test_the_stub_model_is_its_only_model(
    gateway: RunningGateway, installed_openclaw: Installed, model: StubModel
) -> None:
    state = gateway.config_path.parent
    say = [
        str(installed_openclaw.node),
        str(installed_openclaw.script),
        "agent",
        "--agent",
        "main",
        "-m",
        "hello you",
    ]
    done = subprocess.run(
        [*say, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            "PATH": os.defpath,
            "HOME": str(state / "home"),
            "OPENCLAW_STATE_DIR": str(state),
            "OPENCLAW_CONFIG_PATH": str(gateway.config_path),
            "NO_COLOR": "1",
        },
    )
    assert "all is well" in done.stdout, done.stderr
    assert "hello you" in model.wait_for(lambda request: "hello you" in request.text, 5).text


def test_it_comes_back_as_it_was_unless_we_stopped_it(
    gateway: RunningGateway, installed_openclaw: Installed
) -> None:
    first_pid, url = gateway.pid, gateway.url
    config = json.loads(gateway.config_path.read_text())
    assert config["gateway"]["auth"]["token"] == gateway.token
    os.kill(first_pid, signal.SIGTERM)
    eventually(lambda: gateway.comebacks, PATIENCE_S)
    with meet_when_up(gateway.url, gateway.token, within_s=PATIENCE_S):
        second_pid = gateway.pid
    assert gateway.comebacks == [0]
    assert repr(gateway).endswith("came back after [0]>")
    gateway.kill()
    until = time.monotonic() + 2 * AGAIN_AFTER_S
    while time.monotonic() < until:
        assert not gateway.running
        time.sleep(0.1)
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", gateway.port), timeout=5),
    ):
        pass
    gateway.restart()
    assert gateway.running
    assert gateway.url == url
    assert len({first_pid, second_pid, gateway.pid}) == 3
    assert gateway.comebacks == [0]
    elsewhere = RunningGateway(installed_openclaw, gateway.config_path.parent)
    assert (elsewhere.token, elsewhere.port) == (gateway.token, gateway.port)


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
