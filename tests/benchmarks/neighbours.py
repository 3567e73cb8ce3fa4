"""How much a gateway that is away slows the syncs of others: ``python -m tests.benchmarks.neighbours``."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from rich.console import Console
from rich.table import Table

from tests.acceptance.proxy import Door
from tests.integration.provisioning.fleet import execute, one
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Place, Workshop
from worker.local import LocalServices

AGENTS, ROUNDS = 50, 9


def sync(workshop: Workshop, place: Place) -> UUID:
    """Ask for a sync of the place."""
    return workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)


def took_s(workshop: Workshop, place: Place) -> float:
    """Seconds that one sync of the place takes."""
    began = time.monotonic()
    job = workshop.ended(sync(workshop, place))
    assert job.status == "succeeded", job.error
    return time.monotonic() - began


def amid_a_run(workshop: Workshop, place: Place, lose: Callable[[Place], None]) -> None:
    """Lose the gateway while a window of its agents is being worked at."""
    execute(
        workshop.engine,
        "UPDATE agents SET soul_template = 'Anew.' WHERE gateway_id = :id",
        id=place.fleet.gateway_id,
    )
    job_id = sync(workshop, place)
    workshop.eventually(lambda: one(workshop.engine, _DONE, id=job_id)[0] >= 3)
    lose(place)


def refuse(place: Place) -> None:
    """The gateway's machine is there, the gateway is not."""
    place.simulator.kill()


def hang(place: Place) -> None:
    """The gateway takes every call, and answers none."""
    door: Door = place.door
    for _ in range(200):
        door.hold(lambda method, _: method != "connect")


def main() -> None:
    """Print the times side by side."""
    table = Table("the other gateway", "alone", "beside it", "times", box=None)
    console = Console()
    ways: dict[str, Callable[[Place], None]] = {"refuses": refuse, "hangs": hang}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalServices(Path(folder) / "s", durable=False) as services,
    ):
        for number, (name, lose) in enumerate(ways.items()):
            place_of = Path(folder) / name
            place_of.mkdir()
            database = services.create_database(f"neighbours_{number}")
            broker = f"{services.redis_url.rsplit('/', 1)[0]}/{number + 1}"
            with Workshop(database, broker, place_of) as workshop:
                here = workshop.place("2026.9.6", agents=AGENTS)
                there = workshop.place("2026.9.6", agents=AGENTS)
                for place in (here, there):
                    plant(place, place.fleet.agents)
                workshop.start_worker(RETRY_BUDGET_S="600", RETRY_INLINE_S="20", LEASE_S="30")
                for place in (here, there):
                    took_s(workshop, place)
                alone = [took_s(workshop, here) for _ in range(ROUNDS)]
                amid_a_run(workshop, there, lose)
                beside = [took_s(workshop, here) for _ in range(ROUNDS)]
                ratio = statistics.median(beside) / statistics.median(alone)
                shown = [f"{statistics.median(times):.2f} s" for times in (alone, beside)]
                table.add_row(name, *shown, f"{ratio:.2f}")
                console.print(name, [round(b, 2) for b in beside], style="dim")
                for worker in workshop.workers:
                    worker.kill()
    console.print(table)


_DONE = "SELECT coalesce(max(agents_done), 0) FROM provisioner.jobs WHERE id = :id"

if __name__ == "__main__":
    main()
