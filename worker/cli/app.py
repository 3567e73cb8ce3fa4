"""The command ``provisioner``: lists its commands and loads the one that is run.

A command is imported only when it is run: the list needs no database, no templates and no sockets.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

REQUEST = "cli.commands.requests:command_of"
COMMANDS = {
    "demo": (
        "lab.demo.command:demo",
        "Provision a lead and four agents on a temporary gateway and sync them; leaves nothing behind.",
    ),
    "serve": (
        "lab.serve.command:serve",
        "Run Postgres, Valkey, a worker, beat and Flower on this machine until Ctrl-C.",
    ),
    "migrate": ("cli.commands.database:migrate", "Bring the schema `provisioner` up to date."),
    "provision": (
        REQUEST,
        "Provision an agent on its gateway and wait for the result.",
    ),
    "update": (REQUEST, "Bring an agent's files and its roster entry up to date."),
    "adopt": (
        "cli.commands.adoptions:adopt",
        "Adopt agents that a gateway already has: take them under care.",
    ),
    "delete": ("cli.commands.agents:delete", "Take an agent off its gateway and out of the database."),
    "restore": (REQUEST, "Make an agent that was deleted anew from its bundle, with a new token."),
    "bundles": (
        "cli.commands.bundles:bundles",
        "List the bundles that are kept of agents, and what each holds.",
    ),
    "sync": ("cli.commands.syncs:sync", "Bring all agents of a gateway up to date with templates and rows."),
    "drift": ("cli.commands.drift:drift", "List the agents that dry runs found to differ, and what differs."),
    "rollback": (
        "cli.commands.rollbacks:rollback",
        "Take an agent back to what it was before a job changed it.",
    ),
    "rollout": (
        "cli.commands.rollouts:app",
        "Roll-outs, which `sync --canary` begins: where they stand, and to pause, resume or end them.",
    ),
    "heartbeats": (
        REQUEST,
        "Apply the heartbeat settings of a gateway's agents, in one config change.",
    ),
    "lead": ("cli.commands.boards:lead", "Create or repair the lead of a board and provision it."),
    "main": (
        REQUEST,
        "Create or repair the main agent of a gateway and provision it.",
    ),
    "jobs": ("cli.commands.jobs:jobs", "List jobs, the newest first."),
    "job": ("cli.commands.jobs:job", "Show one job: how far it is, what it did, what went wrong."),
    "cancel": (
        "cli.commands.jobs:cancel",
        "Cancel a job: at once, or as soon as the workers that have it are done.",
    ),
    "retry": ("cli.commands.jobs:retry", "Retry what an ended job left undone, as a new job."),
    "settings": (
        "cli.commands.settings:app",
        "What agents' roster entries should have: model, skills, tools, sandbox and the like.",
    ),
    "owners": (
        "cli.commands.owners:app",
        "Whose each workspace file is: ours, the agent's, or merged from what both changed.",
    ),
    "template": (
        "cli.commands.templates:app",
        "Templates of agents' files, by organization, gateway, board, role and agent.",
    ),
    "schedule": ("cli.commands.schedules:app", "Syncs that run on a schedule."),
    "window": (
        "cli.commands.windows:app",
        "Sync windows: when a gateway may be restarted, and its agents woken.",
    ),
    "webhook": ("cli.commands.webhooks:app", "Webhooks, which are called when jobs that name them end."),
    "prune": ("cli.commands.database:prune", "Delete jobs that ended long ago."),
    "orphans": (
        "cli.commands.orphans:orphans",
        "List what is without its other half on a gateway, each with its cure.",
    ),
    "doctor": ("cli.doctor.command:doctor", "Check a gateway and report what is right and wrong with it."),
    "gateway": ("cli.commands.gateways:app", "List OpenClaw gateways, and add new ones."),
    "board": ("cli.commands.boards:app", "List boards, and add new ones."),
    "agent": ("cli.commands.agents:app", "List agents, add new ones, and carry them elsewhere in a file."),
    "metrics": (
        "cli.commands.metrics:metrics",
        "Print metrics for Prometheus: jobs, queues, retries, gateways, drift.",
    ),
    "device": ("cli.commands.device:app", "Show the device key by which gateways recognize the workers."),
}
"""Each command's place below ``worker``, and the line that lists it: the first sentence of its help.
`REQUEST` is the place of those that ask for a job of their kind and do nothing else."""
LAB = "lab."


class Commands(TyperGroup):
    """The group of all commands: loads a command when it is run, and reports expected errors."""

    def __init__(self, **attributes: Any) -> None:
        listed = {name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()}
        super().__init__(**{**attributes, "commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from worker.cli.errors import report  # imports most of the worker

            report(error)
            raise


@cache
def load(name: str) -> Any:
    """The command of that name, ready to run."""
    place, line = COMMANDS[name]
    module, _, attribute = place.partition(":")
    part = getattr(_imported(name, module), attribute)
    if place == REQUEST:
        part = part(name, line)
    holder = typer.Typer()
    if isinstance(part, typer.Typer):
        holder.add_typer(part, name=name)
    else:
        holder.command(name)(part)
    command = typer.main.get_group(holder).commands[name]
    for one in (command, *getattr(command, "commands", {}).values()):
        one.help = _unwrapped(one.help or "")
    return command


def _unwrapped(text: str) -> str:
    """The text with each paragraph on one line: the terminal wraps it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _imported(command: str, module: str) -> ModuleType:
    try:
        return import_module(f"worker.{module}")
    except ModuleNotFoundError as error:
        if not module.startswith(LAB) or not str(error.name).startswith("worker.lab"):
            raise
        from worker.cli.errors import WrongUseError

        raise WrongUseError(
            f"`provisioner {command}` is not part of this installation, which is made to serve and not to try"
            " things out: run it where a checkout was installed with `pip install '.[lab]'`"
        ) from None


app = typer.Typer(
    name="provisioner",
    cls=Commands,
    help="Provisions OpenClaw agents on their gateways, by durable jobs in Postgres.",
    epilog="Exit codes: 0 done; 1 a job failed or a check found faults; 2 wrong use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def provisioner() -> None:
    """Makes typer treat ``app`` as a group of commands."""


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
