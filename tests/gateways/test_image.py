"""The start of the image `gateway` (docker/gateway), on the real release."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.gateway.address import GatewayAddress
from worker.gateway.client import ClientPool, GatewayClient
from worker.gateway.device import DeviceKey
from worker.lab.openclaw import Installed
from worker.lab.openclaw.readiness import wait_until_ready
from worker.lab.servers.ports import free_port
from worker.lab.servers.supervised_process import Program, SupervisedProcess
from worker.lab.simulated_gateway import RELEASE

ROOT = Path(__file__).parents[2]
TOKEN = "gateway-hush-hush-0123456789"


def environment(state: Path, installed: Installed | None = None, **more: str) -> dict[str, str]:
    """What Dockerfile and compose give the container."""
    places = [str(ROOT / "docker"), os.defpath]
    if installed is not None:
        places.insert(0, str(installed.node.parent))
        more["OPENCLAW_INSTALL"] = str(installed.script.parents[2])
        more["TMPDIR"] = str(
            installed.scratch
        )  # it has the release compiled, which takes half of a first start
    return {
        "PATH": ":".join(places),
        "HOME": str(state),
        "OPENCLAW_STATE_DIR": str(state),
        "OPENCLAW_CONFIG_PATH": str(state / "openclaw.json"),
        "OPENCLAW_NO_RESPAWN": "1",
        "NODE_ENV": "production",
        "NO_COLOR": "1",
        **more,
    }


@contextmanager
def running(installed: Installed, state: Path, port: int) -> Iterator[GatewayClient]:
    given = {"OPENCLAW_GATEWAY_TOKEN": TOKEN, "OPENCLAW_PORT": str(port), "OPENCLAW_BIND": "loopback"}
    program = [str(ROOT / "docker" / "gateway")]
    log = state.with_suffix(".log")
    process = SupervisedProcess(
        Program(program, env=environment(state, installed, **given), log_path=log, cwd=state)
    )
    clients = ClientPool(DeviceKey.generate())
    url = f"ws://127.0.0.1:{port}"
    try:
        assert wait_until_ready(
            url, TOKEN, deadline=time.monotonic() + 180, is_alive=lambda: process.poll() is None
        ), log.read_text(errors="replace")[-3000:]
        yield clients.client(GatewayAddress(url, TOKEN))
    finally:
        clients.close_all()
        process.stop()


@pytest.mark.openclaw
def test_it_takes_the_token_from_the_environment_and_keeps_what_is_written_to_it(
    installed_openclaw: Installed, tmp_path: Path
) -> None:
    if installed_openclaw.release != RELEASE:
        pytest.skip(f"the image holds OpenClaw {RELEASE}")
    state, port = tmp_path / "state", free_port()
    state.mkdir(mode=0o700)
    with running(installed_openclaw, state, port) as gateway:
        found = gateway.call("config.get", {})
        change = {"agents": {"ownership": "explicit", "entries": {"mc-1": {"name": "Ada"}}}}
        gateway.call("config.patch", {"raw": json.dumps(change), "baseHash": found["hash"]}, deadline_s=60)
    config = state / "openclaw.json"
    assert config.stat().st_mode & 0o077 == 0
    assert "${OPENCLAW_GATEWAY_TOKEN}" in config.read_text()
    assert not [file for file in state.rglob("*.json*") if TOKEN in file.read_text(errors="replace")]
    with running(installed_openclaw, state, port) as gateway:
        assert "mc-1" in gateway.call("config.get", {})["config"]["agents"]["entries"]


def test_without_a_token_it_does_not_start(tmp_path: Path) -> None:
    start = [str(ROOT / "docker" / "gateway")]
    refused = subprocess.run(start, env=environment(tmp_path), capture_output=True, text=True)
    assert refused.returncode != 0
    assert "set OPENCLAW_GATEWAY_TOKEN in .env" in refused.stderr
    assert not any(tmp_path.iterdir())
