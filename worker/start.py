"""Before a Celery process of ours begins: everything that cannot mend by itself is named at once.

A worker that cannot keep a job would take messages and lose them, so it does not start. What is away,
starting up or read-only is waited for.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from pydantic import field_validator

from worker.broker import BrokerLook, look_at
from worker.database import refusal_of
from worker.errors import PermanentError
from worker.gateway.device import DeviceKey, DeviceKeyError
from worker.settings import Settings, SettingsError, incomplete, load_as, load_settings

WRONG_ENVIRONMENT = 2
_NEEDS_NO_DATABASE = {"database_url": "postgresql+psycopg://not-needed", "base_url": "http://not-needed"}


class BeatSettings(Settings):
    """The settings of a process that gives a sign of life."""

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
    """A worker's: with a device key that can be used, or made."""

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
    """What a process begins with. ``broker`` is None where it was not looked at."""

    settings: Settings
    broker: BrokerLook | None


def begin() -> StartUp:
    """What this process begins with. Exits with 2 and a list of all that is wrong."""
    command = _command()
    try:
        config = _read(command)
        return StartUp(config, _look_around(command, config))
    except SettingsError as error:
        refuse(error)


def refuse(error: PermanentError) -> NoReturn:
    """End this process with the error's sentence, and without a traceback."""
    print(error, file=sys.stderr)
    raise SystemExit(WRONG_ENVIRONMENT)


def _command() -> str | None:
    """Which of ``celery``'s commands runs, None outside of it."""
    context = click.get_current_context(silent=True)
    return context.invoked_subcommand if context is not None else None


def _read(command: str | None) -> Settings:
    if command == "worker":
        return load_as(WorkerSettings)
    if command == "beat":
        return load_as(BeatSettings)
    if command is None:
        return load_settings()
    # Flower and `celery inspect` know the broker alone.
    return load_settings(**_NEEDS_NO_DATABASE)


def _look_around(command: str | None, config: Settings) -> BrokerLook | None:
    """Raises SettingsError for what the servers refuse."""
    if command not in ("worker", "beat", "flower"):
        return None
    faults = []
    if command == "worker" and (refused := refusal_of(config.database_url.get_secret_value())):
        faults.append(f"DATABASE_URL: {refused}")
    seen = look_at(config.broker)
    if seen.fault is not None:
        faults.append(f"REDIS_URL: {seen.fault}")
    if faults:
        raise incomplete(faults)
    return seen
