"""docker-compose.yml keeps its promises: checked on what compose itself makes of it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.compose import FILES, FILLED_IN, ROOT, compose, configured, program, variables_of
from worker.database_url import connect_arguments
from worker.settings import EARLIER_NAMES, Settings, load_settings

SERVICES = {"postgres", "redis", "migrate", "worker", "beat", "flower", "gateway", "metrics"}
LASTING = sorted(SERVICES - {"migrate"})
OURS = sorted(SERVICES - {"postgres", "redis", "gateway"})
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
PATTERN = r"^#?([A-Z_]+)="


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = configured()["services"][name]
    return found


def test_the_services_are_those_that_the_docs_name() -> None:
    assert set(configured()["services"]) == SERVICES


def test_without_a_profile_there_is_no_gateway() -> None:
    listed = compose("config", "--services", environment=FILLED_IN)
    assert set(listed.stdout.split()) == SERVICES - {"gateway", "metrics"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_can_change_nothing_but_its_volumes(name: str) -> None:
    found = service(name)
    assert found["read_only"] is True
    assert int(found["user"].partition(":")[0]) > 0
    assert found["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in found["security_opt"]
    assert any(mount.startswith("/tmp") for mount in found["tmpfs"])
    assert all(volume["type"] == "volume" for volume in found.get("volumes", ()))
    assert "privileged" not in found
    assert "cap_add" not in found


@pytest.mark.parametrize("name", LASTING)
def test_a_service_comes_back_is_watched_and_is_given_time_to_stop(name: str) -> None:
    found = service(name)
    assert found["restart"] == "unless-stopped"
    assert found["healthcheck"]["test"]
    assert found["stop_grace_period"] == "45s"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_port_is_open_to_this_machine_alone(name: str) -> None:
    ports = service(name).get("ports", [])
    assert all(port["host_ip"] == "127.0.0.1" for port in ports)
    assert bool(ports) is (name in ("flower", "metrics"))


def test_databases_are_on_a_network_that_leads_nowhere() -> None:
    assert configured()["networks"]["data"]["internal"] is True
    for name in ("postgres", "redis"):
        assert set(service(name)["networks"]) == {"data"}


def test_all_workers_share_one_device_key_and_may_be_many() -> None:
    worker = service("worker")
    volume, _ = worker["volumes"]
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert (volume["source"], volume["target"]) == ("device", "/var/lib/provisioner")
    assert f"GATEWAY_DEVICE_KEY={volume['target']}/device.pem" in image
    assert {"container_name", "hostname", "ports"}.isdisjoint(worker)


def test_workers_begin_when_the_tables_are_there() -> None:
    for name in ("worker", "beat"):
        waits_for = service(name)["depends_on"]
        assert waits_for["migrate"]["condition"] == "service_completed_successfully"
        assert waits_for["redis"]["condition"] == "service_healthy"
    assert service("migrate")["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_redis_forgets_nothing_and_tells_nobody_its_password() -> None:
    redis = service("redis")
    command = " ".join(redis["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert 'requirepass "$$password"' in command
    assert FILLED_IN["REDIS_PASSWORD"] not in command + str(redis["healthcheck"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_can_take_the_whole_machine(name: str) -> None:
    found = service(name)
    assert int(found["mem_limit"]) >= 2**29
    assert float(found["cpus"]) > 0
    assert found["pids_limit"] >= 64


def test_a_worker_has_threads_enough_for_all_its_slots() -> None:
    assert service("worker")["pids_limit"] > 2 * 200


def test_a_password_with_special_characters_reaches_every_service_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hard = "p@:/?#[]%25 \"'\\&=;ss"
    asked = compose(
        "config",
        "--format",
        "json",
        environment={**FILLED_IN, "POSTGRES_PASSWORD": hard, "REDIS_PASSWORD": hard},
    )
    services = json.loads(asked.stdout)["services"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == hard
    assert services["redis"]["environment"]["REDIS_PASSWORD"] == hard
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("migrate", "worker", "beat"):
        for variable, value in services[name]["environment"].items():
            monkeypatch.setenv(variable, value)
        settings = load_settings()
        assert connect_arguments(make_url(settings.database_url.get_secret_value()))["password"] == hard
        assert settings.broker.password == hard


def test_a_folder_of_templates_is_mounted_where_the_worker_looks() -> None:
    asked = compose(
        "config", "--format", "json", environment={**FILLED_IN, "TEMPLATES_DIR": "/srv/templates"}
    )
    worker = json.loads(asked.stdout)["services"]["worker"]
    mount = worker["volumes"][1]
    assert (mount["type"], mount["source"], mount["read_only"]) == ("bind", "/srv/templates", True)
    assert worker["environment"]["TEMPLATES_DIR"] == mount["target"]
    assert service("worker")["environment"]["TEMPLATES_DIR"] == "", "an empty variable is unset"


def test_third_party_images_can_be_named_by_digest() -> None:
    digests = {name: f"{name.lower()}@sha256:{'0' * 64}" for name in ("POSTGRES_IMAGE", "REDIS_IMAGE")}
    asked = compose("config", "--format", "json", environment={**FILLED_IN, **digests})
    services = json.loads(asked.stdout)["services"]
    assert services["postgres"]["image"] == digests["POSTGRES_IMAGE"]
    assert services["redis"]["image"] == digests["REDIS_IMAGE"]


def test_flower_knows_nothing_of_the_database() -> None:
    assert {"DATABASE_URL", "DATABASE_PASSWORD", "BASE_URL"}.isdisjoint(service("flower")["environment"])


def test_flower_looks_behind_a_password() -> None:
    flower = service("flower")
    assert "--read_only=True" in flower["command"]
    assert flower["environment"]["FLOWER_BASIC_AUTH"] == FILLED_IN["FLOWER_BASIC_AUTH"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_secrets_come_by_the_environment_alone(name: str) -> None:
    found = service(name)
    rest = str({key: value for key, value in found.items() if key != "environment"})
    for variable, value in FILLED_IN.items():
        if variable != "BASE_URL":
            assert value not in rest


@pytest.mark.parametrize("missing", sorted(set(FILLED_IN) - {"OPENCLAW_GATEWAY_TOKEN"}))
@pytest.mark.parametrize("empty", [False, True])
def test_compose_refuses_to_start_without_what_must_be_filled_in(missing: str, empty: bool) -> None:
    environment = {name: value for name, value in FILLED_IN.items() if name != missing}
    refused = compose("config", "-q", environment={**environment, **({missing: ""} if empty else {})})
    assert refused.returncode != 0
    assert f"set {missing} in .env" in refused.stderr


def test_the_gateway_refuses_to_start_without_a_token() -> None:
    assert service("gateway")["environment"]["OPENCLAW_GATEWAY_TOKEN"] == FILLED_IN["OPENCLAW_GATEWAY_TOKEN"]
    start = (ROOT / "docker" / "gateway").read_text(encoding="utf-8")
    assert re.search(r"\$\{OPENCLAW_GATEWAY_TOKEN:\?set OPENCLAW_GATEWAY_TOKEN in \.env", start)


def test_every_variable_is_in_the_example_with_its_line() -> None:
    used = variables_of("".join((ROOT / file).read_text(encoding="utf-8") for file in FILES))
    listed = re.findall(PATTERN, ENV_EXAMPLE, re.MULTILINE)
    assert set(listed) - {"COMPOSE_FILE"} == used - set(EARLIER_NAMES.values())
    assert len(listed) == len(set(listed))
    lines = ENV_EXAMPLE.splitlines()
    for number, line in enumerate(lines):
        if re.match(PATTERN, line):
            assert lines[number - 1].startswith("# "), line
            assert line.endswith("=") or line.startswith("#COMPOSE_FILE="), (
                "no password stands in the example"
            )


def test_the_example_filled_in_is_enough(tmp_path: Any) -> None:
    filled = re.sub(
        PATTERN, lambda found: f"{found[0]}{FILLED_IN.get(found[1], '')}", ENV_EXAMPLE, flags=re.M
    )
    (tmp_path / ".env").write_text(filled, encoding="utf-8")
    asked = compose("--env-file", str(tmp_path / ".env"), "config", "--environment", environment={})
    assert asked.returncode == 0, asked.stderr


def test_beside_mission_control_its_database_is_used_and_only_our_schema_made() -> None:
    services = configured(FILES, with_mission_control=True)["services"]
    assert set(services) == SERVICES - {"postgres"}
    assert services["migrate"]["command"] == ["provisioner", "migrate"]
    assert "postgres" not in services["migrate"].get("depends_on", {})
    for name in set(OURS) - {"flower"}:
        assert services[name]["environment"]["DATABASE_URL"].endswith("@mc/mission_control")


def test_beside_mission_control_its_database_must_be_named() -> None:
    refused = compose("config", "-q", environment=FILLED_IN, files=FILES)
    assert refused.returncode != 0
    assert "set MISSION_CONTROL_DATABASE_URL in .env" in refused.stderr


def test_compose_is_the_real_one() -> None:
    assert program("docker-compose")
    broken = compose("config", "-q", environment=FILLED_IN, files=("pyproject.toml",))
    assert broken.returncode != 0
