"""Installing a release: the real npm, against a registry on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.lab.openclaw.conftest import NEW, OLD
from tests.integration.lab.openclaw.registry import Registry
from tests.integration.lab.servers.processes import descendants, wait_until_gone
from worker.lab.openclaw import Installed, InstallFailed, OpenClaw, RegistryRefused
from worker.lab.openclaw.install import npm_failure

TARBALL = f"/openclaw-{NEW}.tgz"


def in_another_process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.lab.openclaw", NEW],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def folder_of(installed: Installed) -> Path:
    return installed.script.parents[2]


@pytest.mark.usefixtures("registry")
def test_a_release_is_installed_into_the_cache_and_says_how_it_goes(tmp_path: Path) -> None:
    lines: list[str] = []
    installed = OpenClaw.install(NEW, progress=lines.append)
    assert (
        installed.script
        == tmp_path / f"cache/openclaw-provisioner/openclaw/{NEW}/node_modules/openclaw/openclaw.mjs"
    )
    assert (
        subprocess.run([installed.node, installed.script], check=False, capture_output=True).returncode == 3
    )
    assert lines[0] == f"openclaw {NEW}: installing from npm"
    assert lines[-1].startswith(f"openclaw {NEW}: installed in ")


def test_an_installed_release_is_not_asked_for_again(registry: Registry) -> None:
    first = OpenClaw.install(NEW)
    registry.asked.clear()
    assert OpenClaw.install(NEW) == first
    assert registry.asked == []


@pytest.mark.usefixtures("registry")
def test_an_old_release_gets_a_stand_in_for_what_npm_cannot_fetch() -> None:
    installed = OpenClaw.install(OLD)
    script = (
        "const s = require('libsignal'), c = require('libsignal/src/curve.js');"
        "require('libsignal/src/crypto.js').encrypt; new s.SessionCipher(); c.generateKeyPair()"
    )
    ran = subprocess.run(
        [installed.node, "-e", script], cwd=folder_of(installed), capture_output=True, text=True, check=False
    )
    assert "libsignal is not installed" in ran.stderr


def test_two_processes_at_once_install_once(registry: Registry) -> None:
    registry.hold.clear()
    with in_another_process() as first:
        registry.wait_until_asked_for(TARBALL)
        with in_another_process() as second:
            assert second.stdout is not None
            assert second.stdout.readline() == f"openclaw {NEW}: another process is installing it, waiting\n"
            registry.hold.set()
            assert (first.wait(60), second.wait(60)) == (0, 0)
    assert registry.asked.count(TARBALL) == 1


def test_an_install_that_was_killed_is_not_taken_for_whole(registry: Registry, tmp_path: Path) -> None:
    registry.hold.clear()
    with in_another_process() as killed:
        registry.wait_until_asked_for(TARBALL)
        below = descendants(killed.pid)
        killed.send_signal(signal.SIGKILL)
        wait_until_gone(below, 15)
    assert not (tmp_path / f"cache/openclaw-provisioner/openclaw/{NEW}").exists()
    registry.hold.set()
    installed = OpenClaw.install(NEW)
    assert installed.script.exists()
    left = {path.name for path in folder_of(installed).parent.iterdir()}
    assert left == {NEW, f"{NEW}.lock"}


def test_what_npm_finished_elsewhere_is_adopted_and_half_of_it_is_not(registry: Registry) -> None:
    installed = OpenClaw.install(NEW)
    marker = folder_of(installed) / "installed.json"
    marker.unlink()
    registry.asked.clear()
    assert OpenClaw.install(NEW) == installed
    assert registry.asked == []

    marker.unlink()
    (folder_of(installed) / "node_modules/.package-lock.json").unlink()
    (folder_of(installed) / "half").touch()
    OpenClaw.install(NEW)
    assert marker.exists()
    assert not (folder_of(installed) / "half").exists()


def test_a_folder_of_another_release_is_not_adopted(registry: Registry) -> None:
    installed = OpenClaw.install(NEW)
    (folder_of(installed) / "installed.json").unlink()
    package = installed.script.with_name("package.json")
    package.write_text(json.dumps({"name": "openclaw", "version": "2026.1.1"}))
    OpenClaw.install(NEW)
    assert json.loads(package.read_text())["version"] == NEW
    shutil.rmtree(folder_of(installed))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_registry_that_will_not_is_told_apart(registry: Registry, status: int, tmp_path: Path) -> None:
    registry.refuse_with = status
    with pytest.raises(
        RegistryRefused, match=rf"(?s)refused openclaw {NEW} \(E{status}\)\. npm said:\n.*E{status}"
    ):
        OpenClaw.install(NEW)
    assert {path.name for path in (tmp_path / "cache/openclaw-provisioner/openclaw").iterdir()} == {
        f"{NEW}.lock"
    }


@pytest.mark.usefixtures("registry")
def test_a_release_that_the_registry_does_not_have_is_a_refusal() -> None:
    with pytest.raises(RegistryRefused, match="ETARGET"):
        OpenClaw.install("2026.9.99")


def test_a_registry_that_is_not_there_is_no_refusal(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(
        InstallFailed, match=rf"npm could not install openclaw {NEW} \(ECONNREFUSED\)"
    ) as failure:
        OpenClaw.install(NEW)
    assert not isinstance(failure.value, RegistryRefused)
    assert registry.asked == []


@pytest.mark.parametrize("release", ["latest", "", "../../etc", "2026.9.6 ", "https://127.0.0.1/x.tgz"])
def test_only_the_name_of_a_release_is_taken(release: str) -> None:
    with pytest.raises(InstallFailed, match="is not an OpenClaw release"):
        OpenClaw.install(release)


def test_npm_sees_nothing_of_our_secrets(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u:not-for-npm@127.0.0.1/x")
    registry.hold.clear()
    with in_another_process() as installing:
        registry.wait_until_asked_for(TARBALL)
        below = descendants(installing.pid)
        environments = [Path(f"/proc/{process.pid}/environ").read_bytes() for process in below]
        registry.hold.set()
        assert installing.wait(60) == 0
    assert len(environments) >= 2
    assert not any(b"not-for-npm" in environment for environment in environments)


def test_a_failure_without_a_word_from_npm_is_still_a_sentence() -> None:
    assert (
        str(npm_failure(NEW, ""))
        == f"npm could not install openclaw {NEW} (no error code). npm said:\n  (nothing)"
    )
