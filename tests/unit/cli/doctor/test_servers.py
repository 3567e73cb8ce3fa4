"""Doctor warns of a database on another machine that nobody verifies."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from worker.cli.doctor.servers import check_servers
from worker.database_url import read_database_url
from worker.settings import Settings


def warned(url: str) -> bool:
    settings = Settings.model_construct(database_url=SecretStr(url), redis_url=SecretStr(""))
    return any("nobody verifies" in finding.says for finding in check_servers(settings))


@pytest.mark.parametrize("host", ["db.example", "10.1.2.3", "[2001:db8::1]", "localhost,db.example"])
@pytest.mark.parametrize("options", ["", "?sslmode=require", "?sslmode=prefer"])
def test_a_remote_database_that_is_not_verified_is_a_warning(host: str, options: str) -> None:
    url = read_database_url(f"postgresql://u:p@{host}/d{options}").render_as_string(hide_password=False)
    assert warned(url)


@pytest.mark.parametrize(
    "url",
    [
        "db.example/d?sslmode=verify-full",
        "db.example/d?sslmode=verify-ca",
        "db.example/d?sslrootcert=system&sslmode=verify-full",
        "127.0.0.1/d",
        "localhost/d",
        "/d?host=/run/postgresql",
        "/d",
    ],
)
def test_one_that_is_verified_or_here_is_none(url: str) -> None:
    assert not warned(f"postgresql+psycopg://u:p@{url}")
