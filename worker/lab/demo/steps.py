"""Shows the demo's progress: a spinner on a terminal, and one line per step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.cli.console import marks, plain, say, took


class Step:
    """A step in progress. ``result``: what its line says at the end."""

    def __init__(self, steps: Steps, name: str) -> None:
        self._steps = steps
        self._name = name
        self.result = ""

    def progress(self, line: str) -> None:
        """Report progress within a long step."""
        self._steps.progress(self._name, line)


class Steps:
    """Prints the demo's steps."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = console.status("")

    def title(self, text: str) -> None:
        """Print the first line."""
        say(Text(text, style="bold"), "", console=self.console)

    def heading(self, text: str) -> None:
        """Print a heading for the next lines."""
        say("", Text(text, style="bold"), console=self.console)

    def block(self, shown: Text | Table) -> None:
        """Print something below a heading, as wide as fits."""
        self.console.print(Padding(shown, (0, 0, 0, 2)))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run a step in the block; print its line, with the time that it took, at the end."""
        step = Step(self, name)
        began = time.monotonic()
        self._status.update(f"{name} ...")
        with self._status if self.console.is_terminal else contextlib.nullcontext():
            yield step
        mark = marks(self.console).done
        line = Text.assemble(
            f"  {mark} ", f"{name:<17}", (f"{took(time.monotonic() - began):>8}  ", "dim"), plain(step.result)
        )
        say(line, console=self.console)

    def progress(self, name: str, line: str) -> None:
        """Report progress on the spinner, or as a line without a terminal."""
        if self.console.is_terminal:
            self._status.update(f"{name}: {plain(line)}")
        else:
            say(f"    {line}", console=self.console)

    def close(self, seconds: float) -> None:
        """Print the last lines."""
        say(
            "",
            f"All stopped, the temporary folder removed; {took(seconds)} in all.",
            console=self.console,
        )
