"""PgBouncer in transaction mode, with its defaults, in front of a test's Postgres."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from worker.lab.servers.account import server_account
from worker.lab.servers.ports import free_port
from worker.lab.servers.supervised_process import Program, SupervisedProcess

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def bouncer(database_url: str, *more: str) -> Iterator[str]:
    """Run PgBouncer while the block runs, and yield the URL of the same database through it.

    ``more``: further lines of its configuration. Skips the test, saying NOT RUN, if there is no PgBouncer.
    """
    if PROGRAM is None:
        pytest.skip("NOT RUN: there is no pgbouncer on PATH")
    url, port, account = make_url(database_url), free_port(), server_account()
    with tempfile.TemporaryDirectory(prefix="bouncer-") as name:
        folder = Path(name)
        users, configuration, log = folder / "users", folder / "pgbouncer.ini", folder / "pgbouncer.log"
        users.write_text(f'"{url.username}" "{url.password}"\n')
        lines = [
            "[databases]",
            f"* = host={url.host} port={url.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = scram-sha-256",
            f"auth_file = {users}",
            "pool_mode = transaction",
            *more,
        ]
        configuration.write_text("\n".join(lines))
        if account is not None:
            for path in (folder, users, configuration):
                os.chown(path, account.uid, account.gid)
        program = Program([PROGRAM, str(configuration)], {"PATH": os.defpath}, log, account=account)
        running = SupervisedProcess(program)
        try:
            _await(port, log)
            yield url.set(port=port).render_as_string(hide_password=False)
        finally:
            running.stop()


def _await(port: int, log: Path) -> None:
    until = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
