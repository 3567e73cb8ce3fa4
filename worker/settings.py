"""Reads the settings from environment variables and checks them at start; one error lists all faults."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.ages import age_of
from worker.database_url import read_database_url
from worker.errors import PermanentError
from worker.printable import utf8
from worker.redis_url import Broker, read_redis_url
from worker.secret_keys import read_keys
from worker.webhooks.addresses import Networks, read_networks
from worker.workspace.template_sources import check_folder


class SettingsError(PermanentError):
    """An environment variable is missing or has a value that cannot be used."""


class Settings(BaseSettings):
    """The settings from the environment; durations are in seconds. The README's table lists them."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_password: SecretStr | None = Field(default=None, description="for a DATABASE_URL without one")
    redis_password: SecretStr | None = Field(default=None, description="for a REDIS_URL without one")
    database_url: SecretStr
    redis_url: SecretStr
    base_url: str
    gateway_device_key: Path = Path("~/.openclaw-provisioner/device.pem")
    templates_dir: Path | None = Field(default=None, description="templates that replace shipped ones")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    worker_concurrency: int = Field(default=48, ge=1, le=200)
    retry_timeout_s: float = Field(
        default=600, gt=0, le=1e9, allow_inf_nan=False, description="how long a gateway may be unreachable"
    )
    retry_inline_s: float = Field(default=20, ge=0, le=25, description="how long a task waits in its slot")
    lease_s: float = Field(default=30, ge=1, le=300)
    roster_batch_window_s: float = Field(
        default=0.2, ge=0, le=5, description="how long a roster write gathers"
    )
    keep_default_heartbeat: bool = Field(
        default=False, description="whether the first heartbeat block keeps the owner's agents beating"
    )
    dispatch_interval_s: float = Field(default=1, ge=0.05, le=10)
    health_file: Path | None = Field(default=None, description="touched while the process works")
    crash_limit: int = Field(default=5, ge=1, description="claims that may end without a word")
    webhook_key: SecretStr | None = Field(
        default=None, description="from which the secrets of webhooks are derived"
    )
    bundle_key: SecretStr | None = Field(default=None, description="with which bundles are encrypted")
    prune_after: str = Field(default="30d", description="the age at which a worker deletes ended jobs")
    webhook_allowed_networks: str | None = Field(
        default=None, description="private networks that webhooks may be in"
    )

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        stripped = {
            name: utf8(value).strip() if isinstance(value, str) else value for name, value in values.items()
        }
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = read_database_url(value.get_secret_value(), _secret(info.data.get("database_password")))
        return SecretStr(url.render_as_string(hide_password=False))

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        read_redis_url(value.get_secret_value(), _secret(info.data.get("redis_password")))
        return value

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            reachable = False
        if not reachable or any(not c.isprintable() or c in " \"'`$\\?#" for c in value):
            raise ValueError(
                "must be the http:// or https:// address at which agents reach Mission Control, without ? or"
                " #: they append paths to it"
            )
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
            value = _expanded(value).absolute()
            check_folder(value)
        return value

    @field_validator("gateway_device_key")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return _expanded(value)

    @field_validator("health_file")
    @classmethod
    def _there(cls, value: Path | None) -> Path | None:
        return None if value is None else _expanded(value)

    @field_validator("webhook_key")
    @classmethod
    def _keys(cls, value: SecretStr | None) -> SecretStr | None:
        read_keys(_secret(value) or "")
        return value

    @field_validator("bundle_key")
    @classmethod
    def _bundle_keys(cls, value: SecretStr | None) -> SecretStr | None:
        read_keys(_secret(value) or "")
        return value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _networks(cls, value: str | None) -> str | None:
        read_networks(value or "")
        return value

    @field_validator("prune_after")
    @classmethod
    def _age(cls, value: str) -> str:
        if value.lower() != "off" and age_of(value) is None:
            raise ValueError("must be a number with h, d or w, as in 30d, or off")
        return value

    @property
    def prune_age(self) -> timedelta | None:
        """The age of PRUNE_AFTER; None if a worker deletes nothing."""
        return age_of(self.prune_after)

    @property
    def webhook_keys(self) -> Sequence[str]:
        """The keys of WEBHOOK_KEY, the newest first; none if it is not set."""
        return read_keys(_secret(self.webhook_key) or "")

    @property
    def bundle_keys(self) -> Sequence[str]:
        """The keys of BUNDLE_KEY, the newest first; none if it is not set."""
        return read_keys(_secret(self.bundle_key) or "")

    @property
    def webhook_networks(self) -> Networks:
        """The networks of WEBHOOK_ALLOWED_NETWORKS."""
        return read_networks(self.webhook_allowed_networks or "")

    @property
    def broker(self) -> Broker:
        """The broker that REDIS_URL and REDIS_PASSWORD specify."""
        return read_redis_url(self.redis_url.get_secret_value(), _secret(self.redis_password))


def _expanded(path: Path) -> Path:
    """The path with its ``~`` expanded. Raises ValueError if it cannot be a path."""
    try:
        path = path.expanduser()
        path.exists()
    except RuntimeError:
        raise ValueError(f"{path} begins with a home folder that is not known: write out the path") from None
    except OSError as error:
        raise ValueError(f"it cannot be a path: {error.strerror}") from None
    return path


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


_S = TypeVar("_S", bound=Settings)

EARLIER_NAMES = {
    "RETRY_TIMEOUT_S": "RETRY_BUDGET_S",
    "ROSTER_BATCH_WINDOW_S": "ROSTER_BREATH_S",
    "DISPATCH_INTERVAL_S": "CLOCK_TICK_S",
}
"""Maps each renamed variable to its name up to v0.2.0, which is still read."""


def load_settings(**known: str) -> Settings:
    """Read the environment, except for the fields in ``known``.

    Raises SettingsError, with one line for each variable that is missing or wrong.
    """
    return load_as(Settings, **known)


def load_as(kind: type[_S], **known: str) -> _S:
    """Like `load_settings`, for a subclass of Settings that checks more."""
    faults, earlier = [], {}
    for name, old in EARLIER_NAMES.items():
        new_value, old_value = (utf8(os.environ.get(each, "")).strip() for each in (name, old))
        if old_value and new_value and old_value != new_value:
            faults.append(f"{name} and {old}, its earlier name, are set to different values: unset {old}.")
        elif old_value and name.lower() not in known:
            earlier[name] = old
            known[name.lower()] = old_value
    try:
        loaded = kind(**known)  # type: ignore[arg-type]  # pydantic-settings fills in the environment
    except ValidationError as error:
        for each in error.errors():
            name = str(each["loc"][0]).upper() if each["loc"] else ""
            faults.append(_fault(earlier.get(name, name), each["type"], each["msg"]))
        raise incomplete(faults) from None
    if faults:
        raise incomplete(faults)
    return loaded


def incomplete(faults: Sequence[str]) -> SettingsError:
    """The error that lists ``faults``, each of which begins with its variable's name."""
    return SettingsError("The environment is not complete:\n" + "\n".join(f"  {fault}" for fault in faults))


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
