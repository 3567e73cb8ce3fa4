"""A local Postgres: initialized on first use, on a free loopback port, behind a SCRAM password."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from worker.lab.servers.account import Account
from worker.lab.servers.binaries import find_postgres, runnable_by
from worker.lab.servers.folder import DataFolder, LocalServicesError, last_lines
from worker.lab.servers.ports import PORT_TRIES, free_port
from worker.lab.servers.supervised_process import Program, SupervisedProcess

ROLE = DATABASE = "provisioner"
_INITDB_S = 120.0
_START_S = 60.0
_READY_LINE = 7  # of postmaster.pid; pg_ctl goes by it as well
_PORT_TAKEN = re.compile(r"Address already in use|could not create any TCP/IP sockets")
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Postgres:
    """One Postgres server on ``folder``. ``durable`` False trades safety on a power cut for speed (tests)."""

    def __init__(self, folder: DataFolder, account: Account | None, *, durable: bool) -> None:
        self._folder = folder
        self._account = account
        self._durable = durable
        self._home = folder.path / "postgres"
        self._data = self._home / "data"
        self._server: SupervisedProcess | None = None
        self._port: int | None = None

    @property
    def running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    @property
    def pid(self) -> int:
        if self._server is None:
            raise LocalServicesError("The local Postgres is not started.")
        return self._server.pid

    def url(self, database: str = DATABASE) -> str:
        """``postgresql+psycopg://...``, password included. Raises ``LocalServicesError`` before a start."""
        return "postgresql+psycopg://" + self._conninfo(database)

    def _conninfo(self, database: str) -> str:
        if self._port is None:
            raise LocalServicesError("The local Postgres is not started.")
        return f"{ROLE}:{self._folder.password('postgres')}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start, on the port of the last start if there was one, and wait until it takes connections.

        Raises ``LocalServicesError`` with the last lines of its log.
        """
        if self.running:
            return
        bin_folder = runnable_by(find_postgres(), self._account).path.parent
        if not self._data.exists():
            self._initialise(bin_folder)
        elif not self._folder.has_password("postgres"):
            raise LocalServicesError(
                f"{self._data} holds a database, but its password file "
                f"{self._folder.path}/postgres.password is gone."
            )
        for _ in range(PORT_TRIES):
            port = self._port or free_port()
            if self._try_port(bin_folder, port):
                break
        else:
            raise LocalServicesError(f"Postgres found no free port in {PORT_TRIES} tries.")
        self._port = port
        self._make_own_database()

    def stop(self) -> None:
        """Stop the server by fast shutdown: clients are disconnected, and nothing committed is lost."""
        if self._server is not None:
            self._server.stop()

    def kill(self) -> None:
        """Send SIGKILL, as in a crash."""
        if self._server is not None:
            self._server.kill()

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create database ``name``, as a copy of ``template`` (which must be unused) if given; return its
        URL."""
        query = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            query += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(query)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop database ``name`` if it exists, even with clients connected."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, query: sql.Composed) -> None:
        with psycopg.connect("postgresql://" + self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(query)

    def _make_own_database(self) -> None:
        with contextlib.suppress(psycopg.errors.DuplicateDatabase):
            self.create_database(DATABASE)

    @contextlib.contextmanager
    def _reach(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The path by which the server reaches its folder, and the descriptors that it needs for it.

        Another account may be shut out of a parent of the folder (a home of mode 0700, say). It goes in
        through an open descriptor instead, so no parent has to be opened for it.
        """
        if self._account is None or not Path("/proc/self/fd").exists():
            yield str(self._home), ()
            return
        descriptor = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def _program(self, argv: list[str], log: Path, descriptors: tuple[int, ...]) -> Program:
        return Program(
            argv,
            env=_ENVIRONMENT,
            log_path=log,
            account=self._account,
            pass_fds=(self._folder.servers_lock, *descriptors),
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
        )

    def _initialise(self, bin_folder: Path) -> None:
        self._home.mkdir(mode=0o700, exist_ok=True)
        unfinished = self._home / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self._home / "password"
        password_file.unlink(missing_ok=True)
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._folder.password("postgres"))
        if self._account is not None:
            for path in (self._home, password_file):
                os.chown(path, self._account.uid, self._account.gid)
        log = self._folder.new_log("initdb")
        try:
            with self._reach() as (home, descriptors):
                argv = [str(bin_folder / "initdb"), "-D", f"{home}/data.new", "-U", ROLE]
                argv += ["--pwfile", f"{home}/password", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C"]
                initdb = SupervisedProcess(
                    self._program(argv + ([] if self._durable else ["--no-sync"]), log, descriptors)
                )
            try:
                code = initdb.wait(_INITDB_S)
            except TimeoutError:
                code = -1
            finally:
                initdb.stop()
        finally:
            password_file.unlink(missing_ok=True)
        if code != 0:
            raise LocalServicesError(f"Postgres could not set up {self._data}:\n{self._log_end(log)}")
        unfinished.rename(self._data)

    def _try_port(self, bin_folder: Path, port: int) -> bool:
        """True once it is ready, false if another process took the port."""
        settings = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        log = self._folder.new_log("postgres")
        with self._reach() as (home, descriptors):
            argv = [str(bin_folder / "postgres"), "-D", f"{home}/data"]
            for name, value in settings.items():
                argv += ["-c", f"{name}={value}"]
            server = SupervisedProcess(self._program(argv, log, descriptors))
        self._server = server
        until = time.monotonic() + _START_S
        while not self._is_ready(server.pid):
            ended = server.poll() is not None
            if ended and _PORT_TAKEN.search(log.read_text(errors="replace")):
                return False
            if ended or time.monotonic() > until:
                server.stop()
                raise LocalServicesError(f"Postgres did not start in {self._data}:\n{self._log_end(log)}")
            time.sleep(0.02)
        return True

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"

    def _log_end(self, log: Path) -> str:
        return last_lines(log, self._folder.password("postgres"))
