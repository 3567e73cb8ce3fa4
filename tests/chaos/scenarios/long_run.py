"""Mixed work for a long time under faults, on many gateways: nothing that a worker holds may grow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import redis
from sqlalchemy import text

from tests.chaos.scenario import Scenario
from tests.chaos.stage import Site, Stage
from worker.jobs.store.pruning import prune
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import Drop, Refuse, Restart
from worker.records.file_changes import forget_changes
from worker.records.file_texts import forget_texts

MINUTES = float(os.environ.get("MINUTES", "20"))
"""How long it takes; shorter runs show less."""
GATEWAYS = 20
LOOK_S = 15.0
TABLES_SHOWN = 5
KEPT = timedelta(seconds=60)
"""How long ended jobs, and what is on record of their changes, are kept."""
MOST_GROWTH: Mapping[str, float] = {
    "memory of the worker, MB": 1.0,
    "threads of the worker": 0.2,
    "open files of the worker": 1.0,
    "sessions of the database": 0.3,
    "memory of the broker, MB": 0.3,
    "connections of the broker": 0.5,
    "tables, MB": 1.0,
}
"""Limit on the growth a minute, over the second half of the run."""


def stay_level(stage: Stage) -> None:
    """Work of all kinds goes on for long, while gateways break and jobs are pruned. Nothing that the worker,
    the database or the broker holds grows."""
    [worker] = stage.workers
    agents = {site: [site.fleet.add_agent(f"Agent {n:03}") for n in range(3)] for site in stage.sites}
    jobs = [stage.workshop.send(agent, wake=False) for own in agents.values() for agent in own]
    looks: list[tuple[float, dict[str, float]]] = []
    began, next_look = time.monotonic(), 0.0
    while (passed := time.monotonic() - began) < MINUTES * 60:
        if passed >= next_look:
            looks.append((passed / 60, _look(stage, worker.pid)))
            _prune(stage)
            next_look += LOOK_S
        jobs = [job for job in jobs if _open(stage, job)]
        if len(jobs) < 40:
            site = stage.rng.choice(stage.sites)
            _break(stage, site)
            jobs.append(_ask(stage, site, agents[site]))
        time.sleep(0.05)
    stage.done(jobs)
    second_half = looks[len(looks) // 2 :]
    for name, most in MOST_GROWTH.items():
        slope = _slope([(minute, look[name]) for minute, look in second_half])
        print(
            f"    {name}: {second_half[0][1][name]:.1f} to {second_half[-1][1][name]:.1f}, {slope:+.2f}/min"
        )
        if slope > most:
            stage.failed.append(f"{name} grow by {slope:.2f} a minute")
    _show_tables(second_half)


def _prune(stage: Stage) -> None:
    """As `provisioner prune` does."""
    for _ in prune(stage.workshop.engine, KEPT):
        pass
    with stage.workshop.engine.begin() as connection:
        forget_changes(connection, KEPT)
        forget_texts(connection, KEPT)


def _show_tables(looks: Sequence[tuple[float, Mapping[str, float]]]) -> None:
    """Print the tables that grew most."""
    growths = {
        name: _slope([(minute, look.get(name, 0.0)) for minute, look in looks])
        for name in looks[-1][1]
        if name.startswith("table ")
    }
    for name in sorted(growths, key=lambda name: growths[name], reverse=True)[:TABLES_SHOWN]:
        before, after = looks[0][1].get(name, 0.0), looks[-1][1][name]
        print(f"    {name}: {before:.2f} to {after:.2f}, {growths[name]:+.2f}/min")


def _break(stage: Stage, site: Site) -> None:
    kinds = (
        Drop(carried_out=False),
        Drop(carried_out=True),
        Restart(down_s=0.3),
        Refuse("The server is busy. Please try again in a moment.", retryable=True),
    )
    if not site.simulator.faults.outstanding:
        site.simulator.faults.schedule(Fault(stage.rng.choice(kinds), nth=stage.rng.randint(1, 12)))
        stage.broken += 1


def _ask(stage: Stage, site: Site, agents: list[UUID]) -> UUID:
    agent = stage.rng.choice(agents)
    stage.patiently(
        lambda: _change(stage, agent, f"I am changed for the {stage.rng.randint(1, 10**6)}th time.")
    )
    kind = stage.rng.choice(["update", "rotate", "sync", "provision"])
    if kind == "sync":
        return stage.workshop.ask("sync_gateway", gateway_id=site.fleet.gateway_id, include_main=False)
    if kind == "provision":
        return stage.workshop.send(agent, wake=stage.rng.random() < 0.1)
    return stage.workshop.ask("update_agent", agent_id=agent, wake=False, rotate_tokens=kind == "rotate")


def _change(stage: Stage, agent: UUID, soul: str) -> None:
    with stage.workshop.engine.begin() as connection:
        connection.execute(
            text("UPDATE agents SET soul_template = :soul WHERE id = :id"), {"soul": soul, "id": agent}
        )


def _open(stage: Stage, job: UUID) -> bool:
    row = stage.workshop.job(job)
    if row.status in ("failed", "partial"):
        stage.failed.append(f"job {job} {row.status}: {row.error}")
    return row.status in ("queued", "running") or (row.status == "none" and row.published_at is None)


def _look(stage: Stage, pid: int) -> dict[str, float]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    with stage.workshop.engine.connect() as connection:
        sessions = connection.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        )
        tables = {f"table {row.name}, MB": float(row.size) / 2**20 for row in connection.execute(_SIZES)}
    with redis.Redis.from_url(stage.workshop.redis_url) as client:
        told = client.info()
    return {
        "memory of the worker, MB": int(status["VmRSS"].split()[0]) / 1024,
        "threads of the worker": float(status["Threads"]),
        "open files of the worker": float(len(list(Path(f"/proc/{pid}/fd").iterdir()))),
        "sessions of the database": float(sessions or 0),
        "memory of the broker, MB": float(told["used_memory"]) / 2**20,
        "connections of the broker": float(told["connected_clients"]),
        "tables, MB": sum(tables.values()),
        **tables,
    }


def _slope(points: list[tuple[float, float]]) -> float:
    """The growth a minute, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


_SIZES = text("""
    SELECT c.relname AS name, pg_total_relation_size(c.oid) AS size FROM pg_class c
    WHERE c.relkind = 'r' AND c.relnamespace = 'provisioner'::regnamespace
""")

SCENARIOS = (
    Scenario(
        "a long run",
        stay_level,
        agents=0,
        full_agents=0,
        full_runs=1,
        workers=1,
        releases=["2026.2.12", "2026.9.6"] * (GATEWAYS // 2),
        only_full=True,
        compares=False,
    ),
)
