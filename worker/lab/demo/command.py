"""``provisioner demo``: provisions five agents from an empty database, on this machine alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from worker.cli.console import Json, emit, err, note, out
from worker.cli.errors import STOPPED
from worker.cli.job_summary import JobSummary
from worker.cli.submit import watch
from worker.lab.demo.fleet import Fleet, add_fleet, ask_for_all
from worker.lab.demo.report import count_calls, document_of, inspect_fleet, show_fleet_state, show_next
from worker.lab.demo.stack import DemoFailedError, DemoStack, GatewayKind
from worker.lab.demo.steps import Steps
from worker.lab.demo.sync import change_and_sync
from worker.lab.processes import signals_unwind

TIME_OUT_S = 120.0


class Kind(StrEnum):
    """The kind of gateway that the demo runs against."""

    simulator = "simulator"
    openclaw = "openclaw"


def demo(
    gateway: Annotated[
        Kind, typer.Option(help="A simulated OpenClaw, or the real one (installed from npm on first use).")
    ] = Kind.simulator,
    as_json: Json = False,
) -> None:
    """Provision a lead and four agents on a temporary gateway and sync them; leaves nothing behind."""
    steps = Steps(err if as_json else out)
    kind: GatewayKind = "openclaw" if gateway is Kind.openclaw else "simulator"
    began = time.monotonic()
    try:
        with signals_unwind(), DemoStack(kind) as stack:
            try:
                document = _run(stack, steps)
            except Exception as error:
                stack.keep_logs(error)
                raise
    except KeyboardInterrupt:
        note("Stopped: nothing is left running, and the temporary folder is removed.")
        raise typer.Exit(STOPPED) from None
    steps.close(time.monotonic() - began)
    if as_json:
        emit(document)


def _run(stack: DemoStack, steps: Steps) -> dict[str, Any]:
    steps.title(f"Five agents on {stack.gateway_name}, from nothing")
    with steps.step("Postgres, Valkey") as step:
        stack.start_services()
        step.result = "in a temporary folder"
    with steps.step("tables") as step:
        step.result = f"provisioner migrate --standalone: revision {stack.migrate()}"
    with steps.step("gateway") as step:
        stack.start_gateway(step.progress)
        step.result = stack.gateway.url
    with steps.step("worker") as step:
        stack.start_worker()
        step.result = "celery -A worker.app worker"
    with steps.step("fleet") as step:
        fleet = add_fleet(stack.engine, stack.gateway.url, stack.gateway.token)
        step.result = f"board {fleet.board!r}, a lead and {len(fleet.agents) - 1} agents, as rows"
    steps.heading("Provisioning: five rows in provisioner.jobs, taken by the worker")
    boot = stack.boot_id()
    began = time.monotonic()
    jobs = _provision(stack, steps, fleet)
    seconds = time.monotonic() - began
    calls = count_calls(stack.journal)
    state = inspect_fleet(stack.client(), stack.engine, fleet, restarted=stack.boot_id() != boot)
    show_fleet_state(steps, state, jobs, seconds, calls)
    synced = change_and_sync(stack, steps, fleet, _check(stack, "The syncs were not done"))
    show_next(steps)
    return {
        **document_of(stack.gateway_name, state, jobs, seconds, calls),
        "sync": synced.document(),
    }


def _check(stack: DemoStack, otherwise: str) -> Callable[[], None]:
    """Raises DemoFailedError if a process has ended, or the demo takes too long."""
    until = time.monotonic() + TIME_OUT_S

    def check() -> None:
        stack.check()
        if time.monotonic() > until:
            raise DemoFailedError(f"{otherwise} within {TIME_OUT_S:.0f} s.")

    return check


def _provision(stack: DemoStack, steps: Steps, fleet: Fleet) -> list[JobSummary]:
    check = _check(stack, "The agents were not up")
    jobs = watch(stack.engine, ask_for_all(stack.engine, fleet), steps.console, check=check)
    failed = [f"{job.agent_name}: {job.error}" for job in jobs if job.status != "succeeded"]
    if failed:
        raise DemoFailedError("Not every agent came up. " + " ".join(failed))
    return jobs
