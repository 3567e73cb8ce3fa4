"""``make bench``: how long a fleet takes the product, the floor, and one agent after another, in one run.

Ratios count, not seconds: machines differ, and are shared. The ways take turns, round by round.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.benchmarks.bench import bench
from tests.benchmarks.cycle import cycle
from tests.benchmarks.floor import Floor
from tests.benchmarks.product import Product
from tests.benchmarks.report import Costs, Figures, costs_of, write_page
from tests.benchmarks.serial import Serial
from tests.benchmarks.trace import deeds_of
from tests.benchmarks.way import Templates, Way
from worker.lab.servers import LocalServices

TARGETS = ("openclaw:2026.2.12", "openclaw:2026.9.6", "sim:2026.2.12", "sim:2026.9.6")


def main() -> None:
    """Run all deeds on each target, print what they took, and write docs/performance.md if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--target", action="append", help=f"any of {', '.join(TARGETS)} (all)")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5, help="of the product and the floor (5)")
    parser.add_argument("--serial-rounds", type=int, default=2, help="of one agent after another (2)")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    given = parser.parse_args()
    console = Console()
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalServices(Path(folder) / "services", durable=False) as services,
    ):
        for number, target in enumerate(given.target or TARGETS):
            figures = Figures(target, given.agents)
            with bench(target, services, Path(folder) / f"target_{number}") as made, ExitStack() as stack:
                templates = Templates(made.folder / "templates")
                product = Product(made, templates)
                stack.callback(product.close)
                ways: dict[str, Way] = {"a": product, "b": Floor(made, templates)}
                stack.callback(ways["b"].close)
                if given.serial_rounds:
                    ways["c"] = Serial(made, templates)
                    stack.callback(ways["c"].close)
                for turn in range(given.rounds):
                    for name, way in ways.items():
                        if name == "c" and turn >= given.serial_rounds:
                            continue
                        console.print(f"{target}: round {turn + 1}, {WAYS[name]} ...", style="dim")
                        for deed, took_s in cycle(way, made, templates, given.agents):
                            figures.add(deed, name, took_s)
                            console.print(f"  {deed} {took_s:.2f} s", style="dim")
                figures.peak_mb = product.peak_mb()
            figures.costs = _counted(target, services, Path(folder) / f"counted_{number}", given.agents)
            console.print(figures.table())
            console.print(figures.costs_table())
            found.append(figures)
    if given.write:
        write_page(found)


WAYS = {"a": "the product", "b": "the floor", "c": "one after another"}


def _counted(target: str, services: LocalServices, folder: Path, agents: int) -> dict[str, Costs]:
    """What each deed costs the product, in a round of its own: to count slows what is counted."""
    with bench(target, services, folder) as made:
        templates, trace = Templates(folder / "templates"), folder / "trace"
        trace.touch()
        product = Product(made, templates, trace)
        try:
            found, seen, cpu_s = {}, 0, product.cpu_s()
            for deed, _ in cycle(product, made, templates, agents):
                operations, used_s = list(deeds_of(trace)), product.cpu_s()
                found[deed] = costs_of(operations[seen:], agents, used_s - cpu_s)
                seen, cpu_s = len(operations), used_s
            return found
        finally:
            product.close()


if __name__ == "__main__":
    main()
