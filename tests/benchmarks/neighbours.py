"""How much a gateway that does not serve slows others: ``python -m tests.benchmarks.neighbours [WAY ...]``.

One worker. Beside the sync that is timed, the other gateway has a sync and twenty single jobs. Rounds alone
and rounds beside it take turns.
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import UUID

from rich.console import Console
from rich.table import Table

from tests.integration.agents.fleet import execute
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Place, Workshop
from tests.silent_server import silent_server
from worker.lab.servers import LocalServices
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import Delay, Silence

AGENTS, SINGLES, ROUNDS = 50, 20, 5
ANSWER_S = 0.6
"""How long the healthy gateway takes for a listing, so that its sync lasts for five seconds."""


def sync(workshop: Workshop, place: Place) -> UUID:
    """Ask for a sync of the place."""
    return workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)


def took_s(workshop: Workshop, place: Place) -> float:
    """Seconds that one sync of the place takes."""
    began = time.monotonic()
    job = workshop.ended(sync(workshop, place))
    assert job.status == "succeeded", job.error
    return time.monotonic() - began


@contextmanager
def refusing(place: Place) -> Iterator[str]:
    """The gateway's machine is there, the gateway is not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def accepting(place: Place) -> Iterator[str]:
    """Something takes the connection, and says nothing."""
    with silent_server() as url:
        yield url


@contextmanager
def silent(place: Place) -> Iterator[str]:
    """The gateway greets, and says nothing more."""
    place.simulator.faults.schedule(Fault(Silence(), times=None))
    yield place.simulator.url
    place.simulator.faults.clear()


@contextmanager
def slow(place: Place) -> Iterator[str]:
    """The gateway takes five seconds for every call."""
    place.simulator.faults.schedule(Fault(Delay(5.0), times=None))
    yield place.simulator.url
    place.simulator.faults.clear()


WAYS: dict[str, Callable[[Place], AbstractContextManager[str]]] = {
    "refuses": refusing,
    "accepts": accepting,
    "is silent": silent,
    "is slow": slow,
}


def begin(workshop: Workshop, place: Place) -> None:
    """A sync and twenty single jobs of the place."""
    sync(workshop, place)
    for agent_id in place.fleet.agents[:SINGLES]:
        workshop.ask("update_agent", agent_id=agent_id, wake=False)


def forget(workshop: Workshop) -> None:
    """End what is open, and all that is known of an outage."""
    for statement in (
        "UPDATE provisioner.job_agents SET status = 'failed', finished_at = now(), next_attempt_at = NULL,"
        " lease_until = NULL WHERE finished_at IS NULL",
        "UPDATE provisioner.jobs SET status = 'failed', finished_at = now(), next_attempt_at = NULL,"
        " lease_until = NULL WHERE status IN ('queued', 'running')",
        "UPDATE provisioner.gateway_states SET down_since = NULL, probe_until = NULL, last_failure_at = NULL",
    ):
        execute(workshop.engine, statement)
    time.sleep(6)


def main() -> None:
    """Print the times side by side."""
    table = Table("the other gateway", "alone", "beside it", "times", box=None)
    console = Console()
    wanted = sys.argv[1:] or list(WAYS)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalServices(Path(folder) / "s", durable=False) as services,
        Workshop(services.create_database("neighbours"), services.redis_url, Path(folder)) as workshop,
    ):
        here = workshop.place("2026.9.6", agents=AGENTS)
        there = workshop.place("2026.9.6", agents=AGENTS)
        for place in (here, there):
            plant(place, place.fleet.agents)
        workshop.start_worker(RETRY_TIMEOUT_S="600", RETRY_INLINE_S="20", LEASE_S="30")
        for place in (here, there):
            took_s(workshop, place)
        here.simulator.faults.schedule(Fault(Delay(ANSWER_S), "agents.workspace.list", times=None))
        for name in wanted:
            alone, beside = [], []
            for _ in range(ROUNDS):
                alone.append(took_s(workshop, here))
                with WAYS[name](there) as url:
                    change = "UPDATE gateways SET url = :url WHERE id = :id"
                    execute(workshop.engine, change, url=url, id=there.fleet.gateway_id)
                    begin(workshop, there)
                    time.sleep(0.3)
                    beside.append(took_s(workshop, here))
                forget(workshop)
            ratio = statistics.median(beside) / statistics.median(alone)
            shown = [f"{statistics.median(times):.2f} s" for times in (alone, beside)]
            table.add_row(name, *shown, f"{ratio:.2f}")
            console.print(name, [round(b, 2) for b in alone], [round(b, 2) for b in beside], style="dim")
        for worker in workshop.workers:
            worker.kill()
    console.print(table)


if __name__ == "__main__":
    main()
