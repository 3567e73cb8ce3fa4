"""`provisioner serve` as a newcomer runs it: one terminal, one Ctrl-C, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Provisioner
from tests.integration.cli.processes_of import processes_of, wait_until_none

PATIENCE_S = 90.0
ENDS_WITHIN_S = 45.0
COMMAND = [sys.executable, "-m", "worker.cli.app"]
MINTED = re.compile(r"AUTH_TOKEN=([A-Za-z0-9_-]{43})")


class Serving:
    """One run; what it keeps is in ``folder``/stack, and its output, both streams, in ``log``."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.stack = folder / "stack"
        self.log = folder / "serve.log"
        clean = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
        self.environment = {**clean, "HOME": str(folder), "COLUMNS": "80", **environment}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--folder", str(self.stack), "--flower-port", "0", *options],
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=folder,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text()

    def until(self, text: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.05)

    def ended(self, within_s: float = ENDS_WITHIN_S) -> int:
        """Its exit code, once it and all that it started are gone."""
        code = self.process.wait(within_s)
        assert wait_until_none(self.folder) == {}
        return code

    def pid_of(self, *parts: str) -> int:
        """The process itself, not the supervisor in between."""
        return next(
            pid
            for pid, command in processes_of(self.folder).items()
            if all(part in command.split() for part in parts)
        )

    def secrets(self) -> set[str]:
        """The passwords of the servers, the gateway's token, and the tokens of its agents."""
        files = [*self.stack.glob("*.password"), self.stack / "gateway" / "token"]
        found = {file.read_text() for file in files}
        for file in (self.stack / "gateway" / "state").rglob("AGENTS.md"):
            found.update(MINTED.findall(file.read_text()))
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    made: list[Serving] = []

    def start(*options: str, **environment: str) -> Serving:
        made.append(Serving(tmp_path, *options, **environment))
        return made[-1]

    yield start
    for serving in made:
        serving.process.kill()
        serving.process.wait()
    assert wait_until_none(tmp_path) == {}


def test_a_newcomer_provisions_beside_it_and_one_ctrl_c_ends_all(serve: Callable[..., Serving]) -> None:
    key = "k" * 32
    serving = serve("--gateway", "simulator", "--base-url", "http://127.0.0.1:8000", WEBHOOK_KEY=key)
    serving.until("provisioner sync simulator\n")
    assert "superuser" not in serving.output()
    exports = serving.stack / "environment.sh"
    assert exports.stat().st_mode & 0o777 == 0o600
    assert f"export WEBHOOK_KEY={key}\n" in exports.read_text()

    typed = re.findall(r"^  (\. .+|provisioner .+)$", serving.output(), re.MULTILINE)
    assert len(typed) == 6
    script = "\n".join(line.replace("provisioner", " ".join(COMMAND), 1) for line in typed[1:])
    beside = subprocess.run(
        ["bash", "-ec", f"{typed[0]}\n{script}"],
        env=serving.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert beside.returncode == 0, beside.stderr
    assert "Ada: succeeded" in beside.stdout

    refused = subprocess.run(
        [*COMMAND, "serve", "--folder", str(serving.stack), "--flower-port", "0", "--base-url", "http://x"],
        env=serving.environment,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert f"in use by process {serving.process.pid}" in refused.stderr

    flower = re.findall(r"http://127\.0\.0\.1:\d+", serving.output())[-1]
    with urllib.request.urlopen(f"{flower}/workers", timeout=10) as page:
        assert page.status == 200

    secrets = serving.secrets()
    serving.process.send_signal(signal.SIGINT)
    assert serving.ended() == 0
    output = serving.output()
    assert re.search(r"^worker  \| .*succeeded", output, re.MULTILINE)
    assert "\x1b" not in output  # no terminal, no colours
    assert "Traceback" not in output
    assert output.rstrip().endswith("Stopped: nothing is left running.")
    ending = output.partition("Stopping:")[2]  # nobody misses a server that went before him
    assert re.search(r"^(worker|beat) .*\[(warning|error)", ending, re.MULTILINE) is None, output
    assert len(secrets) == 5
    assert [secret for secret in secrets if secret in output] == []
    assert not exports.exists()

    again = serve("--gateway", "simulator", BASE_URL="http://127.0.0.1:8000")
    again.until("Ready.")
    assert again.secrets() == secrets
    listed = subprocess.run(
        ["bash", "-ec", f"{typed[0]}\n{' '.join(COMMAND)} agent list"],
        env=again.environment,
        capture_output=True,
        text=True,
    )
    assert re.search(r"Ada .*online", listed.stdout), listed
    again.process.kill()
    again.ended()


def test_servers_of_the_environment_are_used_and_a_death_is_told(
    serve: Callable[..., Serving], empty_database_url: str, redis_url: str
) -> None:
    urls = {"DATABASE_URL": empty_database_url, "REDIS_URL": redis_url}
    serving = serve(BASE_URL="http://127.0.0.1:8000", **urls)
    serving.until("Ready.")
    running = processes_of(serving.folder).values()
    assert not any("postgres -D" in command or "valkey-server" in command for command in running)
    assert "DATABASE_URL is set: that one is used" in serving.output()
    assert "REDIS_URL is set: that one is used" in serving.output()
    os.kill(serving.pid_of("celery", "beat"), signal.SIGKILL)
    assert serving.ended() == 1
    assert f"Beat ended by itself. What it said is in {serving.stack}/beat.log" in serving.output()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "BASE_URL is not set."),
        (("--base-url", "mission-control"), "BASE_URL: must be the http:// or https:// address"),
    ],
    ids=["none", "no URL"],
)
def test_an_address_for_the_agents_is_needed_before_anything_starts(
    provisioner: Provisioner, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    provisioner.env["DATABASE_URL"] = None
    stack = tmp_path / "stack"
    assert said in provisioner.refused("serve", "--folder", str(stack), "--flower-port", "0", *options)
    assert not stack.exists()


def test_a_password_in_an_address_that_cannot_be_read_is_not_said(
    provisioner: Provisioner, tmp_path: Path
) -> None:
    leaky = "postgresql://u:sla/sh-secret@127.0.0.1:x/db"
    provisioner.env |= {"DATABASE_URL": leaky, "REDIS_URL": "redis://127.0.0.1:9/0"}
    folder = ("--folder", str(tmp_path / "stack"), "--flower-port", "0")
    result = provisioner.run("serve", *folder, "--base-url", "http://x")
    assert result.exit_code == 2
    assert "DATABASE_URL: holds an unencoded" in result.stderr
    assert "secret" not in result.output
