"""The product: two worker processes, asked by ``send_task``; from the first request to the last end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from celery import Celery
from sqlalchemy import text

from tests.benchmarks.bench import Bench
from tests.benchmarks.way import Templates
from tests.worker_process import WorkerProcess
from worker.workspace.tokens import ROUNDS

WORKERS = 2
_ENDED = text("""
    SELECT count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE status IN ('failed', 'partial', 'cancelled')) AS failed, max(error) AS error
    FROM provisioner.jobs WHERE id = ANY(CAST(:ids AS uuid[]))
""")
_LONGEST_S = 300.0


class Product:
    """A `tests.benchmarks.way.Way`. ``trace``: where the workers write down all that they do."""

    def __init__(self, bench: Bench, templates: Templates, trace: Path | None = None) -> None:
        self._bench = bench
        self._agents: list[UUID] = []
        settings = {**bench.settings, "TEMPLATES_DIR": str(templates.folder)}
        self.workers = [
            WorkerProcess(bench.folder / f"w{n}.log", settings, name=f"b{n}", hash_rounds=ROUNDS, trace=trace)
            for n in range(WORKERS)
        ]
        self._app = Celery(broker=bench.settings["REDIS_URL"])
        self._app.conf.task_default_queue = "provisioning"

    def provision(self, agents: list[UUID]) -> None:
        """One request for each agent, all at once."""
        self._agents = agents
        self._serve([("provision_agent", {"agent_id": str(each)}) for each in agents])

    def sync(self) -> None:
        """One sync of the gateway."""
        self._sync()

    def rotate(self) -> None:
        """One sync that rotates the tokens."""
        self._sync(rotate_tokens=True)

    def singles(self) -> None:
        """One update for each agent, all at once."""
        self._serve([("update_agent", {"agent_id": str(each), "wake": False}) for each in self._agents])

    def delete(self) -> None:
        """One delete for each agent, all at once; without a bundle, which the other ways do not make."""
        options = {"without_bundle": True}
        self._serve([("delete_agent", {"agent_id": str(each), **options}) for each in self._agents])

    def close(self) -> None:
        """Stop the workers."""
        self._app.close()
        for worker in self.workers:
            worker.stop()

    def cpu_s(self) -> float:
        """Seconds of CPU that the workers have used so far."""
        return sum(_cpu_s(worker.pid) for worker in self.workers)

    def peak_mb(self) -> float:
        """The most memory that one worker has had resident, in MB."""
        return max(_peak_mb(worker.pid) for worker in self.workers)

    def _sync(self, **options: Any) -> None:
        gateway = str(self._bench.fleet.gateway_id)
        self._serve([("sync_gateway", {"gateway_id": gateway, "include_main": False, **options})])

    def _serve(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> None:
        ids, began = [str(uuid4()) for _ in requests], time.monotonic()
        for task_id, (kind, kwargs) in zip(ids, requests, strict=True):
            self._app.send_task(f"tasks.{kind}", kwargs=kwargs, task_id=task_id, ignore_result=True)
        while True:
            with self._bench.engine.connect() as connection:
                ended = connection.execute(_ENDED, {"ids": ids}).one()
            if ended.failed:
                raise SystemExit(f"{ended.failed} of {len(ids)} jobs failed: {ended.error}")
            if ended.succeeded == len(ids):
                return
            if time.monotonic() - began > _LONGEST_S:
                log = self.workers[0].log()[-2000:]
                raise SystemExit(f"{ended.succeeded} of {len(ids)} jobs ended in {_LONGEST_S:g} s: {log}")
            time.sleep(0.01)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
