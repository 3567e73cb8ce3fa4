"""A real gateway on loopback, with a home, a state folder and an environment of its own (gateways.md 2)."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker.errors import PermanentError
from worker.lab.openclaw.install import Installed
from worker.lab.openclaw.readiness import Refused, wait_until_ready
from worker.lab.openclaw.supervisor import Supervisor
from worker.lab.servers.folder import last_lines
from worker.lab.servers.ports import is_free
from worker.lab.servers.supervised_process import Program, SupervisedProcess

# A gateway also binds some ports after its own, so each gets twenty (gateways.md 2). All are below the ports
# that Linux gives to outgoing connections.
_PORTS = range(24_000, 32_000, 20)
_PORTS_USED = 12
_START_TRIES = 3
_TOO_SLOW = ("state lease heartbeat did not become ready",)
"""2026.9.6 gives a thread of its own five seconds to begin, and ends with code 78 where that is too short."""
_PORT_TAKEN = ("EADDRINUSE", "already in use", "already listening")


class GatewayNotReady(PermanentError):
    """The gateway did not come up; the message ends with the last lines of its log."""


class GatewayRefused(GatewayNotReady):
    """The gateway came up and answered our ``connect`` with a refusal."""


class RunningGateway:
    """A gateway process with its state in ``state_dir``; it ends when this process ends. A context manager.

    ``port``: None for a free one; a gateway also uses some of the nineteen ports above its own. ``token``:
    None for the one in the state folder's configuration, or else a new one. ``config_extra``: merged into a
    new configuration, and ignored if ``state_dir`` already has one. ``env_extra``: variables that the gateway
    gets, which inherits none of ours; if one of them holds the token, the configuration names it as
    ``${VARIABLE}``. ``supervised``: start the gateway again a second after it ends, unless `stop` or `kill`
    ended it.
    """

    def __init__(
        self,
        installed: Installed,
        state_dir: Path,
        *,
        port: int | None = None,
        token: str | None = None,
        config_extra: Mapping[str, Any] | None = None,
        env_extra: Mapping[str, str] | None = None,
        supervised: bool = False,
    ) -> None:
        self._installed = installed
        self._supervised = supervised
        self._supervisor: Supervisor | None = None
        self._state_dir = state_dir.absolute()
        self._given_port = port
        self._config_extra = dict(config_extra or {})
        self._env_extra = dict(env_extra or {})
        self._process: SupervisedProcess | None = None
        self._comebacks: list[int] = []
        self.config_path = self._state_dir / "openclaw.json"
        self.log_path = self._state_dir / "gateway.log"
        self._references = {f"${{{name}}}": value for name, value in self._env_extra.items()}
        gateway = self._stored_gateway_block()
        stored = gateway.get("auth", {}).get("token")
        self.token: str = token or self._references.get(stored, stored) or secrets.token_urlsafe(24)
        self.port: int = port or gateway.get("port") or _free_ports()

    def __repr__(self) -> str:
        came_back = f", came back after {self.comebacks}" if self.comebacks else ""
        return f"<RunningGateway {self._installed.release} on {self.url}{came_back}>"

    @property
    def release(self) -> str:
        return self._installed.release

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The gateway's own process. Raises ``GatewayNotReady`` before the first start."""
        if self._process is None:
            raise GatewayNotReady(f"The gateway on {self._state_dir} was not started.")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def comebacks(self) -> list[int]:
        """The exit codes of the processes that the supervisor replaced, in order."""
        return self._comebacks + (self._supervisor.comebacks if self._supervisor else [])

    def start(self, ready_timeout_s: float = 180.0) -> None:
        """Start the gateway and wait for an accepted ``connect`` (6-12 s, more on a cold disk).

        If it does not get ready, ends it and raises ``GatewayNotReady``.
        """
        if self.running:
            return
        self.stop()  # also one that its supervisor has brought back in this very moment
        deadline = time.monotonic() + ready_timeout_s
        for tries_left in reversed(range(_START_TRIES)):
            self._write_config()
            process = self._process = self._launch()
            if self._came_up(process, deadline):
                if self._supervised:
                    self._supervisor = Supervisor(process, self._launch_again)
                return
            if process.poll() is None:
                raise self._not_ready(f"was not ready in {ready_timeout_s:g} s", process)
            if tries_left and self._has_said(_TOO_SLOW):
                continue
            if self._given_port is not None or not tries_left or not self._has_said(_PORT_TAKEN):
                raise self._not_ready(f"ended with code {process.poll()}", process)
            self.port = _free_ports()

    def _came_up(self, process: SupervisedProcess, deadline: float) -> bool:
        try:
            return wait_until_ready(
                self.url, self.token, deadline=deadline, is_alive=lambda: process.poll() is None
            )
        except Refused as refusal:
            raise GatewayRefused(str(self._not_ready(f"refused our connect ({refusal})", process))) from None
        except BaseException:
            process.stop()
            raise

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after ten seconds."""
        self._leave_alone()
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """Send SIGKILL, as in a crash; the supervisor does not start it again."""
        self._leave_alone()
        if self._process is not None:
            self._process.kill()

    def restart(self, ready_timeout_s: float = 180.0) -> None:
        """Stop and start on the same port and state."""
        self.stop()
        self.start(ready_timeout_s)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the gateway a signal: SIGSTOP makes it hang, SIGCONT continue."""
        if self._process is not None:
            self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _leave_alone(self) -> None:
        """Nobody starts it any more but `start`."""
        if self._supervisor is not None:
            self._supervisor.end()
            self._comebacks += self._supervisor.comebacks
            self._supervisor = None

    def _launch_again(self, code: int) -> SupervisedProcess:
        with self.log_path.open("a") as log:
            log.write(f"[supervisor] it ended with code {code}, and is started again\n")
        self._process = self._launch()
        return self._process

    def _stored_gateway_block(self) -> dict[str, Any]:
        try:
            block = json.loads(self.config_path.read_text()).get("gateway", {})
        except (OSError, ValueError):
            return {}
        return block if isinstance(block, dict) else {}

    def _write_config(self) -> None:
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        own: dict[str, Any] = {
            "logging": {"file": str(self._state_dir / "openclaw.log")},
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": self._written_token()},
            },
        }
        if self.config_path.exists():
            config = json.loads(self.config_path.read_text())
            if _merged(config, own) == config:
                return
        else:
            config = self._config_extra
        unfinished = self.config_path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(_merged(config, own), file, indent=2)
        unfinished.rename(self.config_path)

    def _written_token(self) -> str:
        """The token as the configuration has it already, else as a new one should."""
        stored: str | None = self._stored_gateway_block().get("auth", {}).get("token")
        if stored and self._references.get(stored, stored) == self.token:
            return stored
        named = (reference for reference, value in self._references.items() if value == self.token)
        return next(named, self.token)

    def _launch(self) -> SupervisedProcess:
        home = self._state_dir / "home"
        # Shared by all gateways of a release: compiled sources are kept there, and without them the older
        # releases take 20 s more to start.
        scratch = self._installed.scratch
        for folder in (home, scratch):
            folder.mkdir(mode=0o700, exist_ok=True)
        environment = {
            "PATH": f"{self._installed.node.parent}{os.pathsep}{os.defpath}",
            "HOME": str(home),
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "NO_COLOR": "1",
            # With node's default of 16 MB the garbage collector takes a quarter of a busy 2026.9.6's CPU.
            "NODE_OPTIONS": "--max-semi-space-size=64",
            "OPENCLAW_STATE_DIR": str(self._state_dir),
            "OPENCLAW_CONFIG_PATH": str(self.config_path),
            "OPENCLAW_NO_RESPAWN": "1",
            "OPENCLAW_SKIP_CHANNELS": "1",
        }
        argv = [str(self._installed.node), str(self._installed.script), "gateway", "run"]
        return SupervisedProcess(
            Program(
                [*argv, "--port", str(self.port)],
                env=environment | self._env_extra,
                log_path=self.log_path,
                cwd=self._state_dir,
            )
        )

    def _has_said(self, signs: Sequence[str]) -> bool:
        log = self.log_path.read_text(errors="replace")[-4000:]
        return any(sign in log for sign in signs)

    def _not_ready(self, what: str, process: SupervisedProcess) -> GatewayNotReady:
        process.stop()
        if self._has_said(_TOO_SLOW):
            return GatewayNotReady(
                f"OpenClaw {self.release} on {self.url} gave up starting {_START_TRIES} times: its machine is"
                f" too slow, or too busy at the moment. Try again later; its log is {self.log_path}."
            )
        end = last_lines(self.log_path, self.token)
        return GatewayNotReady(f"OpenClaw {self.release} on {self.url} {what}. Its log ends:\n{end}")


def _merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(config)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


_claims: list[socket.socket] = []


def _claim(port: int) -> bool:
    """Whether nobody else has chosen these ports: a gateway listens on them only seconds later, and whoever
    chose the same ones would take it for their own. The claim ends with this process."""
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0openclaw-provisioner-gateway-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _free_ports() -> int:
    """The first of twenty ports of which the ones that a gateway uses are free now."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if all(is_free(port + offset) for offset in range(_PORTS_USED)) and _claim(port):
            return port
    raise GatewayNotReady("No twenty free ports in a row for a gateway on this machine.")
