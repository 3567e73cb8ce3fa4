"""A supervised process: its exit code, its signals, its end, and the end of what it started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.integration.lab.servers.processes import descendants, wait_until_gone
from worker.lab.servers.supervised_process import CannotStart, Program, SupervisedProcess

STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)


def python(code: str, log: Path, *, stdin: str = "", grace_s: float = 10.0) -> SupervisedProcess:
    argv = [sys.executable, "-c", code]
    return SupervisedProcess(
        Program(argv, env={"PATH": os.defpath}, log_path=log, stdin=stdin, grace_s=grace_s)
    )


def wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while text not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
    ids=["well", "with a code", "by a signal"],
)
def test_the_exit_code_is_the_programs(code: str, exit_code: int, tmp_path: Path) -> None:
    program = python(code, tmp_path / "log")
    assert program.wait(20) == exit_code
    program.stop()


def test_what_it_says_is_in_the_log_and_it_reads_what_it_was_given(tmp_path: Path) -> None:
    program = python(
        "import sys; print(sys.stdin.read().upper(), flush=True); sys.exit('oops')",
        tmp_path / "log",
        stdin="abc",
    )
    assert program.wait(20) == 1
    program.stop()
    assert (tmp_path / "log").read_text() == "ABC\noops\n"


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"cannot run /nowhere/at-all: No such file"):
        SupervisedProcess(Program(["/nowhere/at-all"], env={}, log_path=tmp_path / "log"))


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    program = python(STUBBORN, tmp_path / "log", grace_s=0.2)
    wait_for("up", tmp_path / "log")
    program.stop()
    assert program.poll() == 128 + signal.SIGKILL


def test_a_wait_that_is_too_short_says_so(tmp_path: Path) -> None:
    program = python(STUBBORN, tmp_path / "log")
    with pytest.raises(TimeoutError, match=r"still runs after 0\.1 s"):
        program.wait(0.1)
    program.kill()
    assert program.poll() == 128 + signal.SIGKILL


def test_a_stopped_program_hangs_and_goes_on(tmp_path: Path) -> None:
    program = python(
        "import sys; sys.stdin.read(); print('up', flush=True); import time; time.sleep(99)", tmp_path / "log"
    )
    wait_for("up", tmp_path / "log")
    state = Path(f"/proc/{program.pid}/stat")

    def wait_for_state(wanted: str) -> None:
        deadline = time.monotonic() + 20
        while state.read_text().rpartition(")")[2].split()[0] not in wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    program.send_signal(signal.SIGSTOP)
    wait_for_state("T")
    program.send_signal(signal.SIGCONT)
    wait_for_state("SR")
    program.stop()


def test_what_the_program_started_ends_with_it(tmp_path: Path) -> None:
    """Even a process that left its group and outlives its parent."""
    code = (
        "import subprocess, time;"
        "subprocess.Popen(['sleep', '1000'], start_new_session=True); print('up', flush=True); time.sleep(99)"
    )
    program = python(code, tmp_path / "log")
    wait_for("up", tmp_path / "log")
    below = descendants(program.pid)
    assert len(below) == 1
    program.stop()
    wait_until_gone(below, 1)
