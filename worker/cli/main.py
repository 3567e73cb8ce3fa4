"""The command ``provisioner``: what an operator may ask for, and where each part is.

A part is imported when it is asked for: a list of commands needs no database, no templates and no sockets,
and no command needs all of them.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

PARTS = {
    "demo": (
        "demo:demo",
        "Provision a lead and four agents on a gateway of its own and sync them; leaves nothing behind.",
    ),
    "serve": ("serve:serve", "Run Postgres, Valkey, a worker, beat and Flower, here, until Ctrl-C."),
    "migrate": ("migrate:migrate", "Bring the schema `provisioner` up to date."),
    "provision": ("provision:provision", "Bring an agent to life on its gateway, and wait until it is."),
    "update": ("update:update", "Bring an agent's files and its roster entry up to date."),
    "delete": ("delete:delete", "Take an agent off its gateway and out of the database."),
    "sync": ("sync:sync", "Bring all agents of a gateway to their templates and rows."),
    "heartbeats": (
        "heartbeats:heartbeats",
        "Bring the heartbeat settings of a gateway's agents to their rows, in one config change.",
    ),
    "lead": ("lead:lead", "Make or repair the lead of a board and bring it to life."),
    "main": ("main_agent:main_agent", "Make or repair the main agent of a gateway and bring it to life."),
    "jobs": ("jobs:jobs", "List jobs, the newest first."),
    "job": ("jobs:job", "Show one job: how far it is, what it did, what went wrong."),
    "cancel": ("cancel:cancel", "Cancel a job: at once, or as soon as those at work on it are done."),
    "retry": ("retry:retry", "Do again what an ended job left undone, as a new job."),
    "schedule": ("schedules:app", "Syncs that are made by themselves, every so often."),
    "prune": ("prune:prune", "Delete jobs that ended long ago."),
    "doctor": ("doctor:doctor", "Look at a gateway and say what is right and wrong with it."),
    "gateway": ("gateways:app", "OpenClaw gateways: those there are, and new ones."),
    "board": ("boards:app", "Boards: those there are, and new ones."),
    "agent": ("agents:app", "Agents: those there are, and new ones."),
    "metrics": (
        "metrics:metrics",
        "Print figures for Prometheus: jobs, queues, retries, gateways, drift.",
    ),
    "device": ("device:app", "The device key, by which gateways know the workers."),
}
"""Each command: where it is below worker.cli, and the line that lists it, the first sentence of its help."""


class Commands(TyperGroup):
    """The commands, each loaded when it is used, with every expected error turned into its sentence."""

    def __init__(self, **attributes: Any) -> None:
        listed = {name: TyperCommand(name, help=line) for name, (_, line) in PARTS.items()}
        super().__init__(**{**attributes, "commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from worker.cli.faults import report  # it knows the errors of all parts, so it imports most

            report(error)
            raise


@cache
def load(name: str) -> Any:
    """The command of that name, ready to run."""
    module, _, attribute = PARTS[name][0].partition(":")
    part = getattr(import_module(f"worker.cli.{module}"), attribute)
    holder = typer.Typer()
    if isinstance(part, typer.Typer):
        holder.add_typer(part, name=name)
    else:
        holder.command(name)(part)
    return typer.main.get_group(holder).commands[name]


app = typer.Typer(
    name="provisioner",
    cls=Commands,
    help="Brings OpenClaw agents to life on their gateways, by durable jobs in Postgres.",
    epilog="Exit codes: 0 done; 1 a job failed or a check found faults; 2 wrong use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def provisioner() -> None:
    """A callback makes typer take ``app`` for a group."""


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
