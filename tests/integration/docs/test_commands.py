"""Whatever README.md and docs/ tell a person to type works as it stands there.

Commands of `provisioner` are run, in the order of the pages, on a living gateway and a worker. Those of
docker are put before the real docker-compose, which needs no engine to say what it makes of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.compose import FILLED_IN, ROOT, compose, configured
from tests.integration.cli.conftest import Provisioner
from tests.integration.docs.commands import PAGES, Typed, mentioned, rows, typed
from tests.worker_process import WorkerProcess
from worker.cli.app import COMMANDS as LISTED
from worker.cli.app import load
from worker.lab.simulator import Simulator
from worker.settings import Settings

TOKEN = "right-t0ken"
ELSEWHERE = {
    "pip": "make setup installs us, and the image is built from our wheel (tests/unit/deploy)",
}
"""Programs whose commands are proved by other tests."""
WHOLE = {"demo", "serve"}
"""Commands that bring servers of their own: tests/integration/cli runs them."""
ELSEWHERE_RUN = {"adopt", "rollback", "rollout", "restore", "agent", "--canary"}
"""Commands that need an agent of the gateway's owner, a change, or a bundle, and an option that needs one:
tests/integration/sync and cli run them."""
COMMANDS = typed()


def of(program: str) -> list[Typed]:
    return [command for command in COMMANDS if command.words[0] == program]


def fault(words: tuple[str, ...], *, whole: bool = True) -> str | None:
    """What the parser of `provisioner` has against ``words``; unless ``whole``, they may be a mere name."""
    name, *arguments = words
    if name not in LISTED:
        return f"there is no command {name}"
    command: Any = load(name)
    while arguments and hasattr(command, "commands"):
        if (name := arguments.pop(0)) not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    if not whole and not arguments:
        return None
    try:
        command.make_context(name, arguments)
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def test_every_program_is_looked_after() -> None:
    looked_after = {"provisioner", "celery", "docker", "make", "export", "cp", "chmod", *ELSEWHERE}
    assert {command.words[0] for command in COMMANDS} <= looked_after
    assert len(of("provisioner")) > 25
    assert len(of("docker")) > 8


@pytest.mark.parametrize("command", of("provisioner"), ids=str)
def test_a_command_of_ours_is_understood(command: Typed) -> None:
    assert fault(command.words[1:]) is None


@pytest.mark.parametrize("command", mentioned(), ids=str)
def test_a_command_that_the_text_names_is_understood(command: Typed) -> None:
    assert fault(command.words[1:], whole=False) is None


@pytest.mark.parametrize("wrong", ["rovision Ada", "sync", "sync g --wipe", "schedule ad g", "job a b"])
def test_a_command_that_does_not_exist_would_be_found(wrong: str) -> None:
    assert fault(tuple(wrong.split())) is not None


@pytest.mark.parametrize(("name", "options"), rows(), ids=lambda given: str(given))
def test_a_row_of_the_readme_names_options_that_there_are(name: str, options: list[str]) -> None:
    command: Any = load(name)
    known = {
        option
        for one in (command, *getattr(command, "commands", {}).values())
        for parameter in one.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(options) <= known | {"--json", "--all"}


class Stack:
    """A living gateway in the place of the one that the pages name, and a worker."""

    def __init__(self, provisioner: Provisioner, gateway_url: str, token_file: Path, soul: Path) -> None:
        self._provisioner = provisioner
        self._words = {
            "ws://127.0.0.1:18789": gateway_url,
            "token.txt": str(token_file),
            "soul.md": str(soul),
        }
        self._job = ""

    def type(self, command: Typed) -> None:
        """Run it; a dry run that finds something to do may end with 1, everything else with 0."""
        words = [self._words.get(word, word) for word in command.words[1:]]
        if "4f0c0c3e" in words:
            newest = self._provisioner.json("jobs", "--status", "succeeded", "--limit", "1")
            words[words.index("4f0c0c3e")] = newest[0]["id"][:8]
        ran = self._provisioner.run(*words)
        assert "Traceback" not in ran.output
        assert ran.exit_code == 0 or (ran.exit_code == 1 and "--dry-run" in words), f"{command}\n{ran.output}"


@pytest.fixture
def stack(provisioner: Provisioner, engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    token = tmp_path / "token.txt"
    token.write_text(TOKEN)
    soul = tmp_path / "soul.md"
    soul.write_text("You are {{ agent_name }}.")
    provisioner.env["WEBHOOK_KEY"] = "k" * 32
    settings = {
        "DATABASE_URL": str(provisioner.env["DATABASE_URL"]),
        "GATEWAY_DEVICE_KEY": str(provisioner.env["GATEWAY_DEVICE_KEY"]),
        "REDIS_URL": redis_url,
        "BASE_URL": "http://127.0.0.1:8000",
        "DISPATCH_INTERVAL_S": "0.2",
    }
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "state", reply="Yes.") as gateway:
        worker = WorkerProcess(tmp_path / "worker.log", settings)
        yield Stack(provisioner, gateway.url, token, soul)
        worker.stop()


def test_all_commands_of_ours_do_what_they_are_there_for(stack: Stack) -> None:
    commands = of("provisioner")
    first = next(n for n, command in enumerate(commands) if "--standalone" in command.words)
    last = next(n for n, command in enumerate(commands) if n > first and command.words[1] == "provision")
    trial = commands[first : last + 1]
    assert [command.words[1] for command in trial] == ["migrate", "gateway", "board", "agent", "provision"]
    for command in [*trial, Typed("here", ("provisioner", "main", "my-gateway"))]:
        stack.type(command)
    for command in commands:
        if command not in trial and not set(command.words) & (WHOLE | ELSEWHERE_RUN):
            stack.type(command)


@pytest.mark.parametrize("command", of("celery"), ids=str)
def test_a_process_is_started_as_compose_starts_it(command: Typed) -> None:
    # tests/integration/deploy runs compose's own commands.
    services = configured()["services"].values()
    run = {tuple(service["command"][:4]) for service in services if service.get("command")}
    assert command.words[:4] in run
    options = {word.partition("=")[0].lstrip("-") for word in command.words[4:]}
    assert options <= (flowers_options() if command.words[3] == "flower" else set())


def flowers_options() -> set[str]:
    """Flower's own; it takes any other without a word."""
    listing = "import flower.options; from tornado.options import options; print(*options)"
    told = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(told.stdout.split())


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_a_target_of_make_is_there(command: Typed) -> None:
    asked = subprocess.run([*command.words, "-n"], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr


def test_a_target_of_make_that_the_text_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text("utf-8"))}
    assert {"setup", "lint", "demo"} <= named <= targets


@pytest.mark.parametrize("command", of("export"), ids=str)
def test_a_variable_is_one_of_the_settings(command: Typed) -> None:
    name = command.words[1].partition("=")[0]
    assert name.lower() in Settings.model_fields or name.removeprefix("FLOWER_").lower() in flowers_options()


def test_files_are_where_they_are_copied_from(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path)
    for command in [*of("cp"), *of("chmod")]:
        subprocess.run(command.words, cwd=tmp_path, check=True)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", of("docker"), ids=str)
def test_compose_understands(command: Typed) -> None:
    assert command.words[1] == "compose"
    words = list(command.words[2:])
    chosen: list[str] = []
    while words[0].startswith("-"):
        chosen += [words.pop(0), words.pop(0)]
    verb, *rest = words
    assert compose(*chosen, "config", "-q", environment=FILLED_IN).returncode == 0
    told = compose(verb, "--help", environment=FILLED_IN)
    assert f"docker compose {verb}" in told.stdout.replace("docker-compose", "docker compose"), told.stderr
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        assert option in told.stdout
        if option == "--scale":
            assert rest.pop(0).partition("=")[0] in configured()["services"]
    if rest:
        assert rest[0] in configured()["services"]
    if rest[1:2] == ["provisioner"]:
        assert fault(tuple(rest[2:])) is None
