"""The settings and the database engine of this run of the command."""

from __future__ import annotations

from functools import cache

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy import Engine

from worker.database import make_engine
from worker.settings import Settings, load_as


class OperatorSettings(Settings):
    """The worker's settings without those that only a worker needs: the CLI only reads and writes rows."""

    model_config = SettingsConfigDict(validate_default=False)

    redis_url: SecretStr = SecretStr("")
    base_url: str = ""


def operator_settings() -> Settings:
    """Read the environment. Raises SettingsError if anything that the CLI needs is missing or wrong."""
    return load_as(OperatorSettings)


@cache
def engine() -> Engine:
    """The engine for DATABASE_URL. Raises SettingsError."""
    return engine_at(operator_settings().database_url.get_secret_value())


def engine_at(database_url: str) -> Engine:
    """An engine with the few connections that a command needs."""
    return make_engine(database_url, pool_size=2)
