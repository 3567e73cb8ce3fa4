"""What a local stack gives: real servers, on loopback only, behind passwords, with data that stays."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from worker.lab.servers import LocalServices, LocalServicesError
from worker.lab.servers import postgres as postgres_module
from worker.lab.servers import valkey as valkey_module
from worker.lab.servers.binaries import POSTGRES_BIN, VALKEY_SERVER
from worker.lab.servers.ports import free_port


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def one(url: str, query: str) -> object:
    with connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def start_and_stop(stack: LocalServices) -> None:
    with stack:
        pass


@pytest.fixture
def client(services: LocalServices, redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def test_postgres_wants_its_password(services: LocalServices) -> None:
    password = services.database_url.split("@")[0].rpartition(":")[2]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(services.database_url.replace(password, "wrong"))
    assert (
        one(services.database_url, "SELECT rolpassword FROM pg_authid WHERE rolname = current_user")
        is not None
    )
    with connect(services.database_url) as connection:
        assert connection.pgconn.used_password


def test_valkey_wants_its_password(services: LocalServices) -> None:
    host_and_port = services.redis_url.rpartition("@")[2]
    with (
        redis.Redis.from_url(f"redis://{host_and_port}") as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_valkey_refuses_rather_than_forgets(client: redis.Redis) -> None:
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_both_listen_on_loopback_only(services: LocalServices, client: redis.Redis) -> None:
    assert one(services.database_url, "SHOW listen_addresses") == "127.0.0.1"
    assert one(services.database_url, "SHOW unix_socket_directories") == ""
    assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_passwords_stand_in_private_files_only(tmp_path: Path) -> None:
    with LocalServices(tmp_path / "data", postgres=False, durable=False) as stack:
        password = stack.redis_url.split("@")[0].rpartition(":")[2]
        holders = [
            path
            for path in (tmp_path / "data").rglob("*")
            if path.is_file() and password.encode() in path.read_bytes()
        ]
    assert [path.name for path in holders] == ["valkey.password"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def test_data_is_there_again_after_a_stop(tmp_path: Path) -> None:
    with LocalServices(tmp_path / "data") as stack:
        with connect(stack.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with redis.Redis.from_url(stack.redis_url) as client:
            client.set("kept", "42")
        assert one(stack.database_url, "SHOW fsync") == "on"
    with LocalServices(tmp_path / "data") as stack:
        assert one(stack.database_url, "SELECT answer FROM kept") == 42
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.get("kept") == b"42"


def test_a_server_comes_back_on_its_port_with_its_data_after_a_crash(
    services: LocalServices, client: redis.Redis
) -> None:
    client.set("kept", "42")
    urls = services.database_url, services.redis_url
    pids = services.postgres.pid, services.valkey.pid
    services.postgres.kill()
    services.valkey.kill()
    assert not services.postgres.running
    assert not services.valkey.running
    services.postgres.start()
    services.valkey.start()
    assert (services.database_url, services.redis_url) == urls
    assert (services.postgres.pid, services.valkey.pid) != pids
    assert client.get("kept") == "42"
    assert one(services.database_url, "SELECT 1") == 1


def test_two_stacks_on_two_folders_run_side_by_side(services: LocalServices, tmp_path: Path) -> None:
    with LocalServices(tmp_path / "data", durable=False) as other:
        assert other.database_url != services.database_url
        assert one(other.database_url, "SELECT 1") == one(services.database_url, "SELECT 1") == 1


def test_a_database_from_a_template_holds_what_the_template_held(services: LocalServices) -> None:
    with connect(services.create_database("pattern")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert one(services.create_database("copy", template="pattern"), "SELECT answer FROM kept") == 42
    services.postgres.drop_database("copy")
    services.postgres.drop_database("pattern")


def test_a_stack_without_postgres_says_so(tmp_path: Path) -> None:
    with LocalServices(tmp_path, postgres=False, durable=False) as stack:
        assert stack.valkey.running
        with pytest.raises(LocalServicesError, match="no Postgres"):
            _ = stack.database_url


def test_a_database_that_cannot_start_is_one_sentence_and_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    start_and_stop(LocalServices(folder, valkey=False, durable=False))
    (folder / "postgres" / "data" / "global" / "pg_control").unlink()
    with pytest.raises(LocalServicesError, match=r"(?s)Postgres did not start in .*\n.*(PANIC|could not)"):
        LocalServices(folder, valkey=False).start()
    start_and_stop(LocalServices(folder, postgres=False, durable=False))


def test_a_lost_password_file_is_named(tmp_path: Path) -> None:
    start_and_stop(LocalServices(tmp_path, valkey=False, durable=False))
    (tmp_path / "postgres.password").unlink()
    with pytest.raises(LocalServicesError, match=r"postgres\.password is gone"):
        LocalServices(tmp_path, valkey=False).start()


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_port_lost_in_the_race_is_replaced(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        ports = iter([taken, free_port()])
        module = {"postgres": postgres_module, "valkey": valkey_module}[server]
        monkeypatch.setattr(module, "free_port", lambda: next(ports))
        wanted = {"postgres": server == "postgres", "valkey": server == "valkey"}
        with LocalServices(tmp_path, durable=False, **wanted) as stack:
            url = stack.database_url if server == "postgres" else stack.redis_url
            assert f":{taken}/" not in url


@pytest.mark.parametrize("variable", [POSTGRES_BIN, VALKEY_SERVER])
def test_a_program_that_is_not_where_the_variable_says_is_named(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    with pytest.raises(LocalServicesError, match=f"{variable} is .*nowhere"):
        LocalServices(tmp_path / "data", durable=False).start()


def test_the_machines_own_postgres_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not installed:
        pytest.skip("no Postgres is installed on this machine")
    monkeypatch.setenv(POSTGRES_BIN, str(installed[-1]))
    with LocalServices(tmp_path, valkey=False, durable=False) as stack:
        major = (
            subprocess.check_output([installed[-1] / "postgres", "--version"], text=True)
            .split()[2]
            .split(".")[0]
        )
        assert str(one(stack.database_url, "SHOW server_version")).startswith(major)
