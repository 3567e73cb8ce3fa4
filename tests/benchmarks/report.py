"""The figures of a run: tables for the terminal, and docs/performance.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from tests.benchmarks.cycle import DEEDS
from tests.benchmarks.trace import Operation

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
_BEGIN, _END = "<!-- written by make bench: begin -->", "<!-- end -->"


@dataclass(frozen=True)
class Costs:
    """What a deed costs the product, an agent: calls to the gateway, SQL statements, commits, messages, and
    seconds of CPU of the workers."""

    calls: float
    statements: float
    commits: float
    messages: float
    cpu_s: float


@dataclass
class Figures:
    """The seconds that each deed took each way, round by round, on one target."""

    target: str
    agents: int
    rounds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)
    peak_mb: float = 0.0

    def add(self, deed: str, way: str, took_s: float) -> None:
        """Note one round."""
        self.rounds.setdefault((deed, way), []).append(took_s)

    def median(self, deed: str, way: str) -> float | None:
        """The median of the rounds, None if there are none."""
        rounds = self.rounds.get((deed, way))
        return statistics.median(rounds) if rounds else None

    def rows(self) -> list[tuple[str, ...]]:
        """For each deed: its name, the medians of the three ways, a/b and c/a with the spread of a/b."""
        found: list[tuple[str, ...]] = []
        for deed, name in DEEDS.items():
            a, b, c = (self.median(deed, way) for way in "abc")
            assert a is not None
            assert b is not None
            pairs = zip(self.rounds[deed, "a"], self.rounds[deed, "b"], strict=True)
            ratios = sorted(one / other for one, other in pairs)
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            times = "" if c is None else f"{c / a:.1f}"
            found.append((name, _s(a), _s(b), _s(c), f"{a / b:.2f}", spread, times))
        return found

    def table(self) -> Table:
        """The times, for a terminal of 80 columns."""
        title = f"{self.target}, {self.agents} agents, medians of {len(self.rounds['provision', 'a'])} rounds"
        names = ("", "a", "b", "c", "a/b", "spread", "c/a")
        table = Table(*names, title=title, box=None, padding=(0, 1, 0, 0), title_justify="left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def costs_table(self) -> Table:
        """What an agent costs, for a terminal of 80 columns."""
        names = ("an agent of it costs", "calls", "SQL", "commits", "messages", "ms of CPU")
        table = Table(*names, box=None, padding=(0, 1, 0, 0))
        for row in self.cost_rows():
            table.add_row(*row)
        return table

    def cost_rows(self) -> list[tuple[str, ...]]:
        """For each deed: its name, and what an agent costs."""
        return [
            (
                DEEDS[deed],
                f"{costs.calls:.2f}",
                f"{costs.statements:.2f}",
                f"{costs.commits:.2f}",
                f"{costs.messages:.2f}",
                f"{1000 * costs.cpu_s:.1f}",
            )
            for deed, costs in self.costs.items()
        ]


def costs_of(operations: Sequence[Operation], agents: int, cpu_s: float) -> Costs:
    """Count what was written down while a deed was done."""
    kinds: Counter[str] = Counter()
    for operation in operations:
        commit = operation.kind == "sql" and operation.name == "COMMIT"
        closed = operation.kind == "rpc" and operation.name.startswith("(closed")
        kinds["commit" if commit else "closed" if closed else operation.kind] += 1
    # The request for a job is a message too, which its sender publishes.
    calls, statements, commits, messages = (
        kinds[kind] / agents for kind in ("rpc", "sql", "commit", "message")
    )
    return Costs(calls, statements, commits, messages, cpu_s / agents)


def write_page(found: Sequence[Figures]) -> None:
    """Put the figures between the marks of docs/performance.md."""
    lines = [_machine(), ""]
    for figures in found:
        rounds = len(figures.rounds["provision", "a"])
        lines += [f"### {figures.target}, {figures.agents} agents, {rounds} rounds", ""]
        lines += _markdown(("", "a, s", "b, s", "c, s", "a/b", "spread of a/b", "c/a"), figures.rows())
        lines += ["", f"The larger of two workers had {figures.peak_mb:.0f} MB resident at most.", ""]
        names = ("an agent costs", "calls", "SQL statements", "commits", "messages", "ms of CPU")
        lines += _markdown(names, figures.cost_rows())
        lines.append("")
    page = PAGE.read_text()
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n\n" + "\n".join(lines) + f"{_END}{after}")


def _markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _machine() -> str:
    today = datetime.now(UTC).date().isoformat()
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return f"Measured on {today}: {machine}."


def _s(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"
