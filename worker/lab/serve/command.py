"""``provisioner serve``: a whole deployment on this machine, in one terminal."""

from __future__ import annotations

import contextlib
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from worker.cli.console import note, out, plain, say
from worker.cli.errors import WrongUseError
from worker.lab.log_tail import LogTail
from worker.lab.processes import signals_unwind
from worker.lab.serve.stack import GATEWAY, Plan, ServeStack
from worker.lab.servers.ports import free_port, is_free
from worker.settings import Settings, SettingsError, load_settings

FOLDER = "~/.local/share/openclaw-provisioner"
_LOOK_S = 0.2
_URLS = {
    "DATABASE_URL": "postgresql+psycopg://not-started-yet",
    "REDIS_URL": "redis://not-started-yet",
}


class Simulated(StrEnum):
    """The kind of gateway that needs no installation."""

    simulator = "simulator"


def serve(
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where agents call Mission Control. Default: $BASE_URL."),
    ] = None,
    gateway: Annotated[
        Simulated | None,
        typer.Option(help="Also run a simulated OpenClaw, and add it as a gateway of that name."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the databases, passwords and logs are kept."),
    ] = None,
    flower_port: Annotated[
        int,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="Flower's port on 127.0.0.1; 0 takes a free one."
        ),
    ] = 5555,
) -> None:
    """Run Postgres, Valkey, a worker, beat and Flower on this machine until Ctrl-C.

    The tables are migrated first. If DATABASE_URL or REDIS_URL is set, that server is used
    instead. Everything listens on 127.0.0.1 only; data stays in --folder, by default
    ~/.local/share/openclaw-provisioner. Webhooks are called if WEBHOOK_KEY is set.

    Exit codes: 0 after Ctrl-C, 1 if a process ended, 2 wrong use.
    """
    plan = _plan(base_url, gateway is not None, Path(folder or FOLDER).expanduser().absolute(), flower_port)
    for variable, started in (("DATABASE_URL", plan.database), ("REDIS_URL", plan.broker)):
        if not started:
            say(f"{variable} is set: that one is used, and none is started here.")
    try:
        with signals_unwind(), LogTail(out) as log_tail, ServeStack(plan, log_tail.add) as stack:
            stack.start(say)
            _show_ready(plan, stack.exports)
            try:
                while True:
                    time.sleep(_LOOK_S)
                    stack.check()
            finally:
                with contextlib.suppress(OSError):  # the terminal may be what ended us
                    note("Stopping: what is under way is finished or put back, within 45 s.")
    except KeyboardInterrupt:
        note("Stopped: nothing is left running.")


def _plan(base_url: str | None, gateway: bool, folder: Path, flower_port: int) -> Plan:
    given = {name: bool(os.environ.get(name)) for name in _URLS}
    known = {name.lower(): stand_in for name, stand_in in _URLS.items() if not given[name]}
    if base_url is not None:
        known["base_url"] = base_url
    settings = _settings(known)
    if flower_port and not is_free(flower_port):
        raise WrongUseError(
            f"Port {flower_port} of 127.0.0.1 is taken: give Flower another with --flower-port, or 0 for any."
        )
    return Plan(
        folder=folder,
        settings=settings,
        database=not given["DATABASE_URL"],
        broker=not given["REDIS_URL"],
        flower_port=flower_port or free_port(),
        gateway=gateway,
    )


def _settings(known: dict[str, str]) -> Settings:
    try:
        return load_settings(**known)
    except SettingsError as error:
        if "base_url" not in known:
            error.add_note("BASE_URL can be given as --base-url, too.")
        raise


def _show_ready(plan: Plan, exports: Path) -> None:
    say("", Text("Ready. Ctrl-C ends all.", style="bold"))
    say(f"  Flower   http://127.0.0.1:{plan.flower_port}")
    say("", "In another terminal:", f"  . {plain(exports)}")
    if plan.gateway:
        say(f"  provisioner board add Launch --gateway {GATEWAY}")
        say("  provisioner agent add Ada --board Launch --lead", "  provisioner provision Ada")
        say(f"  provisioner main {GATEWAY}", f"  provisioner sync {GATEWAY}")
    else:
        say("  provisioner gateway list")
    say("")
