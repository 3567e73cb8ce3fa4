"""Shows what several processes log, each line prefixed with its process's name."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from rich.console import Console
from rich.text import Text

from worker.cli.console import plain, say

_POLL_S = 0.1
_LONGEST_LINE = 65536
STYLES = {"worker": "green", "beat": "yellow", "flower": "magenta", "gateway": "blue"}


class LogTail:
    """A thread that shows what is appended to some files, until it is closed. A context manager.

    On a terminal each name has its own colour. Once the output is closed, lines are dropped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = max(map(len, STYLES))
        self._files: list[_TailedFile] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log tail", daemon=True)

    def add(self, name: str, path: Path) -> None:
        """Show the file from its beginning, and what is appended to it."""
        self._files.append(_TailedFile(name, path))

    def __enter__(self) -> LogTail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self._show(last=True)

    def _run(self) -> None:
        while not self._closed.wait(_POLL_S):
            self._show()

    def _show(self, *, last: bool = False) -> None:
        for file in list(self._files):
            for line in file.new_lines(last=last):
                name = Text(f"{file.name:<{self._width}} | ", style=STYLES.get(file.name, ""))
                with contextlib.suppress(OSError):
                    say(name.append(plain(line), style="default"), console=self._console)


class _TailedFile:
    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._read = 0
        self._begun = b""

    def new_lines(self, *, last: bool) -> list[str]:
        """What was completed since; a line without an end is shown at the ``last``, or once too long."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
            self._read += len(new)
            *done, self._begun = (self._begun + new).split(b"\n")
            if self._begun and (last or len(self._begun) > _LONGEST_LINE):
                done.append(self._begun)
                self._begun = b""
            return [line.decode(errors="replace").rstrip() for line in done if line.strip()]
        return []
