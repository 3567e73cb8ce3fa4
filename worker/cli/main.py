"""The command ``provisioner``: what an operator may ask for, and where each part is."""

from __future__ import annotations

import typer

from worker.cli import (
    agents,
    boards,
    delete,
    demo,
    device,
    doctor,
    gateways,
    heartbeats,
    jobs,
    lead,
    main_agent,
    migrate,
    provision,
    update,
)
from worker.cli.faults import Commands

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

app.command()(demo.demo)
app.command()(migrate.migrate)
app.add_typer(gateways.app, name="gateway")
app.add_typer(boards.app, name="board")
app.add_typer(agents.app, name="agent")
app.command()(provision.provision)
app.command()(update.update)
app.command()(delete.delete)
app.command()(heartbeats.heartbeats)
app.command()(lead.lead)
app.command("main")(main_agent.main_agent)
app.command()(jobs.jobs)
app.command()(jobs.job)
app.command()(doctor.doctor)
app.add_typer(device.app, name="device")


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
