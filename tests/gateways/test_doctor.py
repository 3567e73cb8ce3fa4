"""doctor and ``device show`` on a real gateway with everything wrong at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from models.migrate import migrate
from tests.gateways.far_away import from_far_away
from tests.integration.cli.conftest import Provisioner
from tests.integration.cli.inconsistent import (
    SECRETS,
    TOKEN,
    VARIABLES,
    InconsistentGateway,
    assert_all_found,
    known,
)
from worker.database import make_engine
from worker.lab.openclaw import Installed, RunningGateway

pytestmark = pytest.mark.openclaw


def test_every_fault_is_named_with_its_cure_and_a_device_is_followed_to_its_pairing(
    installed_openclaw: Installed, tmp_path: Path, empty_database_url: str
) -> None:
    release = installed_openclaw.release
    engine = make_engine(empty_database_url)
    migrate(engine, standalone=True)
    inconsistent = InconsistentGateway(engine, release)
    provisioner = Provisioner(empty_database_url, tmp_path / "device.pem")
    knows_far = release >= "2026.8"  # a trusted proxy makes 2026.3.13 take its own machine for a remote one
    config = inconsistent.config | ({"gateway": {"trustedProxies": ["127.0.0.1"]}} if knows_far else {})
    gateway = RunningGateway(
        installed_openclaw, tmp_path / "state", token=TOKEN, config_extra=config, env_extra=VARIABLES
    )
    with gateway, from_far_away(gateway.port) as far:
        inconsistent.settle(gateway.url)
        before = gateway.config_path.read_bytes()
        assert_all_found(provisioner, release)
        assert gateway.config_path.read_bytes() == before
        if knows_far:
            inconsistent.add_gateway("far", far)
            refused = provisioner.run("doctor", "far")
            assert refused.exit_code == 1
            approve = _command(refused.stdout, "openclaw devices approve")
            assert known(provisioner)["far"] == (False, None)
            _openclaw(gateway, installed_openclaw, *approve)
            assert known(provisioner)["far"] == (True, True)
            assert "our device is paired" in provisioner.run("doctor", "far").stdout
        shown = provisioner.run("device", "show")
        assert shown.exit_code == 0
        assert all(len(line) <= 80 for line in shown.stdout.splitlines())
        assert not [secret for secret in SECRETS if secret in shown.output]
    engine.dispose()


def _command(shown: str, command: str) -> list[str]:
    """The command that a sentence holds in backticks, as words."""
    (found,) = [part for part in " ".join(shown.split()).split("`") if part.startswith(command)]
    return found.split()[1:]


def _openclaw(gateway: RunningGateway, installed: Installed, *arguments: str) -> None:
    """OpenClaw's own command, on the gateway's machine."""
    state = gateway.config_path.parent
    subprocess.run(
        [str(installed.node), str(installed.script), *arguments],
        check=True,
        capture_output=True,
        timeout=120,
        env={
            "PATH": str(installed.node.parent),
            "HOME": str(state / "home"),
            "OPENCLAW_STATE_DIR": str(state),
            "OPENCLAW_CONFIG_PATH": str(gateway.config_path),
            "NO_COLOR": "1",
            **VARIABLES,
        },
    )
