"""Checks a Celery process's environment before it starts, and lists all faults for the operator together.

A worker that cannot store a job would take messages and lose them, so it does not start. It does start, and
waits, if a server is unreachable, starting up or read-only.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from pydantic import field_validator

from worker.broker import BrokerCheck, check_broker
from worker.database import refusal_of
from worker.errors import PermanentError
from worker.gateway.device import DeviceKey, DeviceKeyError
from worker.settings import Settings, SettingsError, incomplete, load_as, load_settings

WRONG_ENVIRONMENT = 2
_NEEDS_NO_DATABASE = {"database_url": "postgresql+psycopg://not-needed", "base_url": "http://not-needed"}


class BeatSettings(Settings):
    """The settings of a process that gives a sign of life: HEALTH_FILE, if set, must be writable."""

    @field_validator("health_file")
    @classmethod
    def _writable(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        draft = value.with_name(f".{value.name}.{secrets.token_hex(8)}")
        try:
            if value.exists():
                value.open("ab").close()
            else:
                draft.open("xb").close()
                draft.unlink()
        except OSError as error:
            raise ValueError(
                f"{value} cannot be written ({error.strerror}): name a file in a folder that this process"
                " may write"
            ) from None
        return value


class WorkerSettings(BeatSettings):
    """The settings of a worker: its device key must be usable, or it must be possible to create one."""

    @field_validator("gateway_device_key")
    @classmethod
    def _usable(cls, value: Path) -> Path:
        try:
            DeviceKey.check(value)
        except DeviceKeyError as error:
            raise ValueError(str(error)) from None
        return value


@dataclass(frozen=True)
class StartUp:
    """The result of the startup checks. ``broker``: None if the command does not check the broker."""

    settings: Settings
    broker: BrokerCheck | None


def run_startup_checks() -> StartUp:
    """Read the settings and check the servers. If there are faults, lists them all and exits with 2."""
    command = _command()
    try:
        config = _read(command)
        return StartUp(config, _check_servers(command, config))
    except SettingsError as error:
        refuse(error)


def refuse(error: PermanentError) -> NoReturn:
    """Exit with 2, printing the error's sentence and no traceback."""
    print(error, file=sys.stderr)
    raise SystemExit(WRONG_ENVIRONMENT)


def _command() -> str | None:
    """Which of ``celery``'s commands runs, or None outside of ``celery``."""
    context = click.get_current_context(silent=True)
    return context.invoked_subcommand if context is not None else None


def _read(command: str | None) -> Settings:
    if command == "worker":
        return load_as(WorkerSettings)
    if command == "beat":
        return load_as(BeatSettings)
    if command is None:
        return load_settings()
    # Flower and `celery inspect` use only the broker.
    return load_settings(**_NEEDS_NO_DATABASE)


def _check_servers(command: str | None, config: Settings) -> BrokerCheck | None:
    """Check the servers that the command uses. Raises SettingsError with what they refuse."""
    if command not in ("worker", "beat", "flower"):
        return None
    faults = []
    if command == "worker" and (refused := refusal_of(config.database_url.get_secret_value())):
        faults.append(f"DATABASE_URL: {refused}")
    seen = check_broker(config.broker)
    if seen.fault is not None:
        faults.append(f"REDIS_URL: {seen.fault}")
    if faults:
        raise incomplete(faults)
    return seen
