from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from worker.lab.log_tail import LogTail


def shown(tmp_path: Path, written: bytes, *, terminal: bool) -> str:
    stream = StringIO()
    console = Console(
        file=stream, force_terminal=terminal, color_system="standard" if terminal else None, width=80
    )
    log = tmp_path / "worker.log"
    with LogTail(console) as log_tail:
        log_tail.add("worker", log)
        log.write_bytes(written)
    return stream.getvalue()


def test_each_line_stands_behind_the_name_of_its_process(tmp_path: Path) -> None:
    assert shown(tmp_path, b"one\n\ntwo", terminal=False) == "worker  | one\nworker  | two\n"


def test_only_a_terminal_gets_colours_and_none_but_ours(tmp_path: Path) -> None:
    assert "\x1b[2J" not in shown(tmp_path, b"\x1b[2Jcleared\n", terminal=True)
    assert shown(tmp_path, b"one\n", terminal=True).startswith("\x1b[32mworker  | ")
