"""The data folder of one local stack: its lock, its passwords, its logs."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from worker.errors import PermanentError

# A process that was just sent SIGKILL needs a moment to be gone, and its servers some more.
_WAIT_FOR_DYING_OWNER_S = 1.0
_WAIT_FOR_ENDING_SERVERS_S = 15.0


class LocalServicesError(PermanentError):
    """The local stack cannot do what was asked. The message says why, with the end of the server's log."""


class DataFolder:
    """A folder that one stack at a time may use.

    It has two locks. ``owner`` belongs to this process alone; while it is taken, a second stack is refused.
    ``servers`` is inherited by the servers; while it is taken, a second stack waits, so that a stack started
    right after a kill -9 does not meet the old servers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._locks: tuple[int, int] | None = None

    @property
    def servers_lock(self) -> int:
        """The descriptor that the servers inherit."""
        if self._locks is None:
            raise LocalServicesError(f"The data folder {self.path} is not open.")
        return self._locks[1]

    def open(self) -> None:
        """Create the folder (0700) if necessary and take its locks. Raises ``LocalServicesError`` if that is
        impossible, or if others hold the locks."""
        descriptors: list[int] = []
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("owner", "servers"):
                descriptors.append(os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600))
            owner, servers = descriptors
            if not _locked(owner, _WAIT_FOR_DYING_OWNER_S):
                raise LocalServicesError(_in_use(self.path, os.pread(owner, 4096, 0)))
            if not _locked(servers, _WAIT_FOR_ENDING_SERVERS_S):
                raise LocalServicesError(f"Servers of a process that ended are still running on {self.path}.")
            _sign(owner)
        except OSError as error:
            _close(descriptors)
            raise LocalServicesError(f"Cannot use {self.path} as a data folder: {error.strerror}.") from None
        except BaseException:
            _close(descriptors)
            raise
        self._locks = owner, servers

    def close(self) -> None:
        if self._locks is not None:
            _close(self._locks)
            self._locks = None

    def has_password(self, server: str) -> bool:
        return self._password_path(server).exists()

    def password(self, server: str) -> str:
        """The password of ``server``, generated at the first call and kept in a file of mode 0600."""
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
        """The path of an empty log; the previous run's is kept beside it."""
        path = self.path / f"{server}.log"
        if path.exists():
            path.rename(path.with_suffix(".log.1"))
        path.touch(mode=0o600)
        return path


def last_lines(log: Path, secret: str, count: int = 6) -> str:
    """The end of a server's log, for an error's text, with ``secret`` masked."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-count:]).replace(secret, "***") or "  (its log is empty)"


def _locked(descriptor: int, recheck_s: float) -> bool:
    until = time.monotonic() + recheck_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        else:
            return True


def _sign(owner: int) -> None:
    signature = {
        "pid": os.getpid(),
        "program": Path(sys.argv[0]).name,
        "since": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}",
    }
    os.ftruncate(owner, 0)
    os.pwrite(owner, json.dumps(signature).encode(), 0)


def _in_use(path: Path, signature: bytes) -> str:
    try:
        holder = json.loads(signature)
        by = f"process {holder['pid']} ({holder['program']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        by = "another process"
    return f"The data folder {path} is in use by {by}. Stop it, or choose another folder."


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
