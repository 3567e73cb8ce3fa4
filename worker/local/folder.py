"""The data folder of one local stack: its lock, its passwords, its logs."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from worker.errors import PermanentError

_WAIT_FOR_ENDING_SERVERS_S = 15.0


class LocalServicesError(PermanentError):
    """The local stack cannot do what was asked. The message says why, with the end of the server's log."""


class DataFolder:
    """A folder that one stack at a time may use.

    The lock is an open file that the servers inherit: it is free again when the owner *and* they are gone, so
    a start right after a kill -9 waits for them instead of meeting them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def lock_fd(self) -> int:
        """The descriptor of the lock, for the servers to inherit."""
        if self._lock is None:
            raise LocalServicesError(f"The data folder {self.path} is not open.")
        return self._lock

    def open(self) -> None:
        """Make the folder (0700) if need be, take its lock. Raises ``LocalServicesError``: who holds it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LocalServicesError(f"Cannot use {self.path} as a data folder: {error.strerror}.") from None
        try:
            self._take(lock)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self, lock: int) -> None:
        until = time.monotonic() + _WAIT_FOR_ENDING_SERVERS_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _read_holder(lock)
                if _is_alive(holder.get("pid")) or time.monotonic() > until:
                    raise LocalServicesError(_in_use(self.path, holder)) from None
                time.sleep(0.05)
        holder = {
            "pid": os.getpid(),
            "program": Path(sys.argv[0]).name,
            "since": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}",
        }
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode(), 0)

    def has_password(self, server: str) -> bool:
        return self._password_path(server).exists()

    def password(self, server: str) -> str:
        """The password of ``server``, made at the first call and kept in a file of mode 0600."""
        path = self._password_path(server)
        if not path.exists():
            unfinished = path.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
            unfinished.rename(path)
        return path.read_text()

    def _password_path(self, server: str) -> Path:
        return self.path / f"{server}.password"

    def new_log(self, server: str) -> Path:
        """The path of an empty log; the one of the run before is kept beside it."""
        path = self.path / f"{server}.log"
        if path.exists():
            path.rename(path.with_suffix(".log.1"))
        path.touch(mode=0o600)
        return path


def last_lines(log: Path, secret: str, count: int = 6) -> str:
    """The end of a server's log, for an error's text; ``secret`` is blotted out."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-count:]).replace(secret, "***") or "  (its log is empty)"


def _read_holder(lock: int) -> Mapping[str, object]:
    try:
        holder = json.loads(os.pread(lock, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_use(path: Path, holder: Mapping[str, object]) -> str:
    if not holder:
        return f"The data folder {path} is in use by another process."
    by = f"process {holder.get('pid')} ({holder.get('program')}, since {holder.get('since')})"
    if _is_alive(holder.get("pid")):
        return f"The data folder {path} is in use by {by}. Stop it, or choose another folder."
    return f"The data folder {path} is still held by servers of {by}, which itself has ended."
