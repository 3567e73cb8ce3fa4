"""``make bench``: how long a fleet's first provision takes, three ways side by side in one run.

Ratios count, not seconds: the machine is shared. The gateway's own restarts are set aside, as far as it lets
nobody in meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.bench import AwayClock, Bench, bench
from tests.benchmarks.trace import deeds_of
from tests.benchmarks.ways import bare_client, one_after_another, provisioner
from worker.lab.servers import LocalServices

WAYS: dict[str, Callable[[Bench], float]] = {
    "bare client": bare_client,
    "openclaw-provisioner": provisioner,
    "one after another": one_after_another,
}


def main() -> None:
    """Run the ways that are asked for on each target, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", help="sim:2026.9.6, openclaw:2026.2.12, ...")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--way", action="append", choices=list(WAYS))
    parser.add_argument(
        "--idle",
        type=float,
        default=10.0,
        metavar="S",
        help="how long our workers have been up (10); 0: they make all tokens while they are asked for",
    )
    parser.add_argument("--costs", action="store_true", help="count what an agent costs (slower)")
    given = parser.parse_args()
    console = Console()
    table = Table("target", "way", "seconds", "away", "rest", "times bare", box=None, padding=(0, 1, 0, 0))
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalServices(Path(folder) / "services", durable=False) as services,
    ):
        for target in given.target or ["sim:2026.2.12", "sim:2026.9.6"]:
            bare_s: float | None = None
            for n, way in enumerate(given.way or WAYS):
                place = Path(folder) / f"{target.replace(':', '-').replace('.', '-')}-{n}"
                console.print(f"{target}: {given.agents} agents, {way} ...", style="dim")
                with (
                    bench(target, services, place, agents=given.agents) as made,
                    AwayClock(made.address) as away,
                ):
                    trace = place / "trace" if given.costs else None
                    took_s = WAYS[way](replace(made, trace=trace, idle_s=given.idle))
                own_s = took_s - away.away_s
                bare_s = own_s if way == "bare client" else bare_s
                times = f"{own_s / bare_s:.2f}" if bare_s else ""
                gone = f"{away.away_s:.2f} in {away.restarts}"
                table.add_row(target, way, f"{took_s:.2f}", gone, f"{own_s:.2f}", times)
                if trace is not None and trace.exists():
                    console.print(_costs(trace, given.agents))
    console.print(table)


def _costs(trace: Path, agents: int) -> Table:
    """What one agent costs, by kind and by what was done."""
    table = Table("kind", "an agent", "what", box=None, padding=(0, 1, 0, 0))
    operations = list(deeds_of(trace))
    for kind in ("rpc", "sql", "message", "task", "hash"):
        done = Counter(operation.name for operation in operations if operation.kind == kind)
        table.add_row(kind, f"{done.total() / agents:.2f}", style="bold")
        for name, times in done.most_common():
            table.add_row("", f"{times / agents:.2f}", name[:60])
    return table


if __name__ == "__main__":
    main()
