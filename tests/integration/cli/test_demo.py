"""The demo as a user runs it: a process of its own, which leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cli.json_keys import Keys
from tests.integration.cli.processes_of import processes_of, wait_until_none

PATIENCE_S = 90.0
MINTED = re.compile(r"AUTH_TOKEN=([A-Za-z0-9_-]{43})")


class Demo:
    """One run; everything it makes is in ``folder``."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli.app", "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "TMPDIR": str(folder), "COLUMNS": "80"},
            start_new_session=True,
        )
        self.tokens: set[str] = set()

    def until(self, there: Callable[[], bool]) -> None:
        """Wait for a sign of how far it is."""
        end = time.monotonic() + PATIENCE_S
        while not there():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)

    def has_worker(self) -> bool:
        return any("worker.app" in command for command in processes_of(self.folder).values())

    def take_tokens(self) -> None:
        """Note the plain tokens that lie on disk now: the gateway's, and the agents' in their workspaces."""
        with contextlib.suppress(FileNotFoundError):  # it is being removed
            for file in self.folder.glob("provisioner-demo-*/gateway/token"):
                self.tokens.add(file.read_text())
            for file in self.folder.glob("provisioner-demo-*/gateway/state/**/AGENTS.md"):
                self.tokens.update(MINTED.findall(file.read_text()))

    def result(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    made: list[Demo] = []

    def start(*options: str) -> Demo:
        made.append(Demo(tmp_path, *options))
        return made[-1]

    yield start
    for demo in made:
        demo.process.kill()
        demo.process.communicate()
    assert wait_until_none(tmp_path) == {}


def test_the_demo_provisions_its_fleet_and_leaves_nothing(run: Callable[..., Demo], tmp_path: Path) -> None:
    demo = run()
    demo.until(demo.has_worker)
    seen = " ".join(processes_of(tmp_path).values())
    while demo.process.poll() is None:
        demo.take_tokens()
        time.sleep(0.05)
    code, out, err = demo.result()
    assert (code, err) == (0, "")
    assert all(name in seen for name in ("postgres", "valkey", "worker.lab.simulator"))
    assert wait_until_none(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
    for name in ("Ada", "Ben", "Chloe", "Dev", "Ezra"):
        assert re.search(rf"{name}: succeeded, 7 files written, woken", out)
    assert "AUTH_TOKEN=<masked>" in out
    assert "1 config write for all of them" in out
    assert "5 of 5 would change, 0 need nothing" in out
    assert "Changed there: AGENTS.md of Ada, Ben, Chloe, Dev, Ezra; nothing else." in out
    assert re.search(r"5 files written, \d+ calls to the gateway, 0 config writes, no restart", out)
    assert re.search(r" 0 files written, \d+ calls to the gateway, 0 config writes, no restart", out)
    assert len(demo.tokens) == 6  # the gateway's and the agents', so that the next line means something
    assert [token for token in demo.tokens if token in out] == []
    assert all(len(line) <= 80 for line in out.splitlines())


def test_its_json_is_all_that_stdout_holds(run: Callable[..., Demo]) -> None:
    code, out, err = run("--json").result()
    document = json.loads(out)
    assert code == 0
    assert "Five agents" in err
    assert [job["status"] for job in document["jobs"]] == ["succeeded"] * 5
    assert {entry["id"] for entry in document["roster"]} >= {
        job["result"]["openclaw_id"] for job in document["jobs"]
    }
    assert document["token_matches"] is True
    names = ("Ada", "Ben", "Chloe", "Dev", "Ezra")
    assert document["sync"]["changed"] == {name: ["AGENTS.md"] for name in names}
    assert (document["sync"]["config_writes"], document["sync"]["restarted"]) == (0, False)
    assert document["sync"]["calls_again"] < document["sync"]["calls"]
    assert document["sync"]["again"]["result"]["agents_unchanged"] == 5
    keys = Keys()
    jobs_and_entries = {"jobs": [], "roster": [], "sync": dict.fromkeys(document["sync"])}
    keys.add("demo", {**document, **jobs_and_entries})
    assert keys.differences(of={"demo"}) == ([], [])


@pytest.mark.parametrize(
    ("when", "number", "code"),
    [("early", signal.SIGTERM, 128 + signal.SIGTERM), ("late", signal.SIGINT, 130)],
    ids=["early SIGTERM", "late SIGINT"],
)
def test_a_signal_ends_it_and_all_it_started(
    run: Callable[..., Demo], tmp_path: Path, when: str, number: signal.Signals, code: int
) -> None:
    demo = run()
    demo.until(demo.has_worker if when == "late" else lambda: bool(processes_of(tmp_path)))
    demo.process.send_signal(number)
    ended, _, err = demo.result()
    assert ended == code
    assert "Traceback" not in err
    assert wait_until_none(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_kill_ends_all_it_started(run: Callable[..., Demo], tmp_path: Path) -> None:
    demo = run()
    demo.until(demo.has_worker)
    demo.process.kill()
    demo.process.communicate()
    assert wait_until_none(tmp_path) == {}


def test_a_worker_that_dies_fails_it_with_the_place_of_the_logs(
    run: Callable[..., Demo], tmp_path: Path
) -> None:
    demo = run()
    demo.until(demo.has_worker)
    worker = next(pid for pid, command in processes_of(tmp_path).items() if "-m celery" in command)
    os.kill(worker, signal.SIGKILL)
    code, _, err = demo.result()
    assert code == 1
    assert "Traceback" not in err
    log = Path(re.search(r"(/\S+\.log)", err)[1])  # type: ignore[index]  # its absence fails the test
    assert "== worker.log" in log.read_text()
    assert list(tmp_path.iterdir()) == [log]
