"""A simulated gateway in a thread of its own, which starts and stops like a process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker.lab.simulator import document
from worker.lab.simulator.fault_schedule import FaultSchedule
from worker.lab.simulator.faults import Fault
from worker.lab.simulator.journal import Call, Journal
from worker.lab.simulator.known_releases import RELEASES
from worker.lab.simulator.release import Release
from worker.lab.simulator.roster import roster_of
from worker.lab.simulator.server import Server
from worker.lab.simulator.timings import QUICK, Timings
from worker.lab.simulator.workspaces import Workspaces

_START_S = 10.0


class Simulator:
    """One gateway of ``release`` on loopback, with its state in the folder ``state_dir``.

    Start and stop it as often as needed: its state is on disk, and the port stays the same. Agents'
    workspaces are kept inside ``state_dir`` whatever path the roster gives them (`workspace` finds them).

    ``reply``: what every agent's model says; None: no model is configured. With ``remote``, clients count as
    coming from another machine: devices wait for `approve_devices`. ``config`` is merged into a new
    openclaw.json; ``environment`` holds the variables that it names (None: ours). ``journal``: a JSONL file
    to which everything in `calls` is appended. ``faults`` schedules failures:
    ``simulator.faults.schedule(Fault(Drop(), "config.patch"))``.
    """

    def __init__(
        self,
        release: str,
        *,
        token: str,
        state_dir: Path,
        port: int = 0,
        timings: Timings = QUICK,
        reply: str | None = None,
        remote: bool = False,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        journal: Path | None = None,
    ) -> None:
        if release not in RELEASES:
            raise ValueError(f"no simulated release {release}; there are {', '.join(RELEASES)}")
        self.release: Release = RELEASES[release]
        self.token = token
        self.state_dir = state_dir.absolute()
        self.timings = timings
        self.journal = Journal(journal)
        self.faults = FaultSchedule(self._tell)
        self._port = port
        self._reply = reply
        self._remote = remote
        self._config = dict(config or {})
        self._environment = os.environ if environment is None else dict(environment)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None

    def __repr__(self) -> str:
        return f"<Simulator {self.release.name} at {self.url}>"

    @property
    def url(self) -> str:
        """The gateway's URL; before the first start, its port is 0 if none was given."""
        return f"ws://127.0.0.1:{self._port}"

    @property
    def config_path(self) -> Path:
        return self.state_dir / "openclaw.json"

    @property
    def calls(self) -> list[Call]:
        """Every request so far, refused ones and ``connect`` included, in the order of their answers."""
        return self.journal.calls

    @property
    def restarts(self) -> int:
        """The number of restarts that the gateway made on its own; `stop` and `start` do not count."""
        return self.journal.restarts

    @property
    def config_writes(self) -> int:
        """The number of times that a request has changed the config file."""
        return self.journal.config_writes

    def agents(self) -> dict[str, dict[str, Any]]:
        """Roster entries by agent id, as openclaw.json and the files it includes hold them now."""
        return roster_of(self.release).agents(document.read(self.config_path).source)

    def workspace(self, agent_id: str) -> Path:
        """The folder on this disk that holds an agent's files; KeyError for an unknown agent."""
        return Workspaces(self.state_dir, self.release).folder(agent_id, self.agents()[agent_id])

    def start(self) -> Self:
        """Listen, and return. Raises RuntimeError if it is running, OSError if the port is taken."""
        if self._thread is not None:
            raise RuntimeError("the simulator runs already")
        self._prepare()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"simulator-{self.release.name}")
        self._thread.daemon = True
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException:
            self._end()
            raise
        return self

    def stop(self) -> None:
        """Stop as on SIGTERM: connected clients get the ``shutdown`` event and a close with code 1012.

        Does nothing if the simulator is not running.
        """
        if self._server is not None:
            self._run(self._server.close())
        self._end()

    def kill(self) -> None:
        """Stop as on SIGKILL: connections end without a close frame."""
        if self._server is not None:
            self._run(self._server.abort())
        self._end()

    def restart(self) -> None:
        """Restart as 2026.2.12 does after a patch; returns when it listens again."""
        if self._server is None:
            raise RuntimeError("the simulator does not run")
        self._run(self._server.restart())

    def refuse_connections(self, seconds: float) -> None:
        """Refuse connections on the port for that time; open ones stay open."""
        if self._server is None:
            raise RuntimeError("the simulator does not run")
        self._run(self._server.refuse_connections(seconds))

    def approve_devices(self) -> None:
        """Approve every device that waits for pairing."""
        if self._server is not None:
            self._server.pairing.approve_all()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        if not self.config_path.exists():
            auth = {"mode": "token", "token": self.token}
            gateway = {"mode": "local", "bind": "loopback", "auth": auth}
            text = json.dumps({"gateway": gateway, **self._config}, indent=2)
            self.config_path.touch(mode=0o600)
            self.config_path.write_text(text, encoding="utf-8")

    def _tell(self, fault: Fault) -> None:
        self.journal.fault_struck(time.time(), type(fault.kind).__name__, fault.method)

    async def _open(self) -> None:
        self._server = Server(
            self.release,
            self.state_dir,
            token=self.token,
            port=self._port,
            timings=self.timings,
            journal=self.journal,
            faults=self.faults,
            reply=self._reply,
            remote=self._remote,
            environment=self._environment,
        )
        await self._server.open()
        self._port = self._server.port

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_S + self.timings.down_s)

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = self._server = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
