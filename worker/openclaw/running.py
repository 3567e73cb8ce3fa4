"""A real gateway on loopback, with a home, a state folder and an environment of its own (gateway.md 2)."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker.errors import PermanentError
from worker.local.folder import last_lines
from worker.local.ports import is_free
from worker.local.tethered import Program, Tethered
from worker.openclaw.handshake import Refused, wait_until_ready
from worker.openclaw.install import Installed

# A gateway also binds some ports after its own, so each gets twenty (gateway.md 2). All are below the ports
# that Linux gives to outgoing connections.
_PORTS = range(24_000, 32_000, 20)
_PORTS_USED = 12
_PORT_TRIES = 3
_PORT_TAKEN = ("EADDRINUSE", "already in use", "already listening")


class GatewayNotReady(PermanentError):
    """The gateway did not come up; the message ends with the last lines of its log."""


class RunningGateway:
    """One gateway process on ``state_dir``, which ends when this process ends. A context manager.

    ``port`` None: a free one, of twenty that nobody else uses. ``token`` None: that of the state folder's
    configuration, else a new one. ``config_extra`` is merged into a configuration that is made here, and
    ignored where ``state_dir`` has one already. Nothing of our environment reaches the gateway but
    ``env_extra``.
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
    ) -> None:
        self._installed = installed
        self._state_dir = state_dir.absolute()
        self._given_port = port
        self._config_extra = dict(config_extra or {})
        self._env_extra = dict(env_extra or {})
        self._process: Tethered | None = None
        self.config_path = self._state_dir / "openclaw.json"
        self.log_path = self._state_dir / "gateway.log"
        gateway = self._stored_gateway_block()
        self.token: str = token or gateway.get("auth", {}).get("token") or secrets.token_urlsafe(24)
        self.port: int = port or gateway.get("port") or _free_ports()

    def __repr__(self) -> str:
        return f"<RunningGateway {self._installed.release} on {self.url}>"

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

    def start(self, ready_timeout_s: float = 180.0) -> None:
        """Start it and wait for an accepted ``connect`` (6-12 s, more on a cold disk).

        Raises ``GatewayNotReady``, after ending it.
        """
        if self.running:
            return
        deadline = time.monotonic() + ready_timeout_s
        for tries_left in reversed(range(_PORT_TRIES)):
            self._write_config()
            process = self._process = self._launch()
            if self._came_up(process, deadline):
                return
            if process.poll() is None:
                raise self._not_ready(f"was not ready in {ready_timeout_s:g} s", process)
            if self._given_port is not None or not tries_left or not self._lost_its_port():
                raise self._not_ready(f"ended with code {process.poll()}", process)
            self.port = _free_ports()

    def _came_up(self, process: Tethered, deadline: float) -> bool:
        try:
            return wait_until_ready(
                self.url, self.token, deadline=deadline, is_alive=lambda: process.poll() is None
            )
        except Refused as refusal:
            raise self._not_ready(f"refused our connect ({refusal})", process) from None
        except BaseException:
            process.stop()
            raise

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after ten seconds."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()

    def restart(self, ready_timeout_s: float = 180.0) -> None:
        """Stop and start on the same port and state."""
        self.stop()
        self.start(ready_timeout_s)

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT make it hang and go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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
                "auth": {"mode": "token", "token": self.token},
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

    def _launch(self) -> Tethered:
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
            "OPENCLAW_STATE_DIR": str(self._state_dir),
            "OPENCLAW_CONFIG_PATH": str(self.config_path),
            "OPENCLAW_NO_RESPAWN": "1",
            "OPENCLAW_SKIP_CHANNELS": "1",
        }
        argv = [str(self._installed.node), str(self._installed.script), "gateway", "run"]
        return Tethered(
            Program(
                [*argv, "--port", str(self.port)],
                env=environment | self._env_extra,
                log_path=self.log_path,
                cwd=self._state_dir,
            )
        )

    def _lost_its_port(self) -> bool:
        log = self.log_path.read_text(errors="replace")[-4000:]
        return any(sign in log for sign in _PORT_TAKEN)

    def _not_ready(self, what: str, process: Tethered) -> GatewayNotReady:
        process.stop()
        end = last_lines(self.log_path, self.token)
        return GatewayNotReady(f"OpenClaw {self.release} on {self.url} {what}. Its log ends:\n{end}")


def _merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(config)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _free_ports() -> int:
    """The first of twenty ports of which the ones that a gateway uses are free now."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if all(is_free(port + offset) for offset in range(_PORTS_USED)):
            return port
    raise GatewayNotReady("No twenty free ports in a row for a gateway on this machine.")
