"""What the command needs of the environment: the database, and the device key for ``doctor``."""

from __future__ import annotations

from functools import cache

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy import Engine

from worker.database import make_engine
from worker.settings import Settings, load_as


class OperatorSettings(Settings):
    """The worker's settings, less what only a worker needs: this command writes rows and reads them."""

    model_config = SettingsConfigDict(validate_default=False)

    redis_url: SecretStr = SecretStr("")
    base_url: str = ""


def operator_settings() -> Settings:
    """Read the environment. Raises SettingsError, which names only what this command needs."""
    return load_as(OperatorSettings)


@cache
def engine() -> Engine:
    """The engine of this run. Raises SettingsError."""
    return engine_at(operator_settings().database_url.get_secret_value())


def engine_at(database_url: str) -> Engine:
    """An engine for a command."""
    return make_engine(database_url, pool_size=2)
