"""A local Valkey (or Redis): on a free loopback port, behind a password; a stop loses nothing."""

from __future__ import annotations

import os
import time

from worker.lab.servers.account import Account
from worker.lab.servers.binaries import find_valkey, runnable_by
from worker.lab.servers.folder import DataFolder, LocalServicesError, last_lines
from worker.lab.servers.ports import PORT_TRIES, free_port
from worker.lab.servers.supervised_process import Program, SupervisedProcess

_START_S = 30.0
_READY = "Ready to accept connections"
_PORT_TAKEN = "Address already in use"


class Valkey:
    """One Valkey server on ``folder``. ``durable`` False leaves it to the kernel when to write (for
    tests). ``data``: the folder of what it keeps."""

    def __init__(self, folder: DataFolder, account: Account | None, *, durable: bool) -> None:
        self._folder = folder
        self._account = account
        self._durable = durable
        self.data = folder.path / "valkey"
        self._server: SupervisedProcess | None = None
        self._port: int | None = None

    @property
    def running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    @property
    def pid(self) -> int:
        if self._server is None:
            raise LocalServicesError("The local Valkey is not started.")
        return self._server.pid

    @property
    def url(self) -> str:
        """``redis://...``, password included, database 0. Raises ``LocalServicesError`` before a start."""
        if self._port is None:
            raise LocalServicesError("The local Valkey is not started.")
        return f"redis://:{self._folder.password('valkey')}@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start, on the port of the last start if there was one, and wait until it takes connections.

        Raises ``LocalServicesError`` with the last lines of its log.
        """
        if self.running:
            return
        program = str(runnable_by(find_valkey(), self._account).path)
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None:
            os.chown(self.data, self._account.uid, self._account.gid)
        for _ in range(PORT_TRIES):
            port = self._port or free_port()
            if self._try_port(program, port):
                self._port = port
                return
        raise LocalServicesError(f"Valkey found no free port in {PORT_TRIES} tries.")

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def kill(self) -> None:
        """Send SIGKILL, as in a crash."""
        if self._server is not None:
            self._server.kill()

    def _configuration(self, port: int) -> str:
        settings = {
            "bind": "127.0.0.1",
            "port": port,
            "requirepass": self._folder.password("valkey"),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec" if self._durable else "no",
            "save": '""',
            # A broker must refuse rather than forget a message.
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _try_port(self, program: str, port: int) -> bool:
        """True once it is ready, false if another process took the port."""
        log = self._folder.new_log("valkey")
        server = self._server = SupervisedProcess(
            Program(
                [program, "-"],
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                log_path=log,
                cwd=self.data,
                account=self._account,
                stdin=self._configuration(port),
                pass_fds=(self._folder.servers_lock,),
            )
        )
        until = time.monotonic() + _START_S
        # Its own log says when it is ready. A connection might give the password to somebody else.
        while _READY not in log.read_text(errors="replace"):
            ended = server.poll() is not None
            if ended and _PORT_TAKEN in log.read_text(errors="replace"):
                return False
            if ended or time.monotonic() > until:
                server.stop()
                end = last_lines(log, self._folder.password("valkey"))
                raise LocalServicesError(f"Valkey did not start in {self.data}:\n{end}")
            time.sleep(0.01)
        return True
