"""The lines of the demo as it goes: a spinner on a terminal, one line a step everywhere."""

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
    """One step under way; ``result`` is what its line says at the end."""

    def __init__(self, steps: Steps, name: str) -> None:
        self._steps = steps
        self._name = name
        self.result = ""

    def progress(self, line: str) -> None:
        """A word on the way, for a step that takes long."""
        self._steps.progress(self._name, line)


class Steps:
    """Where the demo writes to."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = console.status("")

    def title(self, text: str) -> None:
        """The first line."""
        say(Text(text, style="bold"), "", console=self.console)

    def heading(self, text: str) -> None:
        """What the next lines are about."""
        say("", Text(text, style="bold"), console=self.console)

    def block(self, shown: Text | Table) -> None:
        """Something below a heading, as wide as fits."""
        self.console.print(Padding(shown, (0, 0, 0, 2)))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step; its line comes when it is done, with the time that it took."""
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
        """A word on the way: on the spinner, or as a line."""
        if self.console.is_terminal:
            self._status.update(f"{name}: {plain(line)}")
        else:
            say(f"    {line}", console=self.console)

    def close(self, seconds: float) -> None:
        """The last lines."""
        say(
            "",
            f"All stopped, the temporary folder removed; {took(seconds)} in all.",
            console=self.console,
        )
