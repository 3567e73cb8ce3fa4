"""Every environment variable, checked once at start; all faults are named at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import PermanentError
from worker.workspace.sources import check


class SettingsError(PermanentError):
    """The environment lacks something, or holds something that cannot be right."""


class Settings(BaseSettings):
    """What the environment says. Times are in seconds. The README's table lists the same."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: SecretStr
    redis_url: SecretStr
    base_url: str
    gateway_device_key: Path = Path("~/.openclaw-provisioner/device.pem")
    templates_dir: Path | None = Field(default=None, description="templates that replace shipped ones")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    worker_concurrency: int = Field(default=16, ge=1, le=200)
    retry_budget_s: float = Field(default=600, gt=0, description="how long a gateway may be unreachable")
    retry_inline_s: float = Field(default=20, ge=0, le=25, description="how long a task waits in its slot")
    lease_s: float = Field(default=30, ge=1, le=300)
    roster_breath_s: float = Field(default=0.2, ge=0, le=5, description="how long a roster write gathers")
    clock_tick_s: float = Field(default=1, ge=0.05, le=10)
    health_file: Path | None = Field(default=None, description="touched while the process works")
    crash_limit: int = Field(default=5, ge=1, description="claims that may end without a word")

    @field_validator("database_url")
    @classmethod
    def _psycopg(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        for prefix in ("postgresql://", "postgres://"):
            if url.startswith(prefix):
                return SecretStr("postgresql+psycopg://" + url.removeprefix(prefix))
        if not url.startswith("postgresql+psycopg://"):
            raise ValueError("must begin with postgresql+psycopg://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        return value

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or any(c.isspace() or c in "\"'`$\\" for c in value):
            raise ValueError("must be the http:// or https:// address at which agents reach Mission Control")
        return value.rstrip("/")

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: object, info: object) -> object:
        name = getattr(info, "field_name", "")
        if isinstance(value, str):
            return value.upper() if name == "log_level" else value.lower()
        return value

    @field_validator("templates_dir")
    @classmethod
    def _templates(cls, value: Path | None) -> Path | None:
        if value is not None:
            value = value.expanduser().absolute()
            check(value)
        return value

    @field_validator("gateway_device_key")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("health_file", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return value or None


def load_settings(**known: str) -> Settings:
    """Read the environment, less what is ``known`` by the names of the fields already.

    Raises SettingsError: one line for each variable that is missing or wrong.
    """
    try:
        return Settings(**known)  # type: ignore[arg-type]  # pydantic-settings fills in the environment
    except ValidationError as error:
        faults = [
            _fault(str(e["loc"][0]).upper() if e["loc"] else "", e["type"], e["msg"]) for e in error.errors()
        ]
    raise SettingsError("The environment is not complete:\n" + "\n".join(f"  {fault}" for fault in faults))


def _fault(name: str, kind: str, message: str) -> str:
    if kind == "missing":
        return f"{name} is not set. {_WHAT_FOR.get(name, '')}".rstrip()
    return f"{name}: {message.removeprefix('Value error, ')}"


_WHAT_FOR = {
    "DATABASE_URL": "Mission Control's Postgres: postgresql+psycopg://user:password@host/name",
    "REDIS_URL": "The broker: redis://:password@host:6379/0",
    "BASE_URL": "The http(s) address at which agents call Mission Control back.",
}


@cache
def settings() -> Settings:
    """The settings of this process, read on first use."""
    return load_settings()
