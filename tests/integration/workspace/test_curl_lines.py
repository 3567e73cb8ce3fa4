"""Runs every curl line of every rendered file as the agent would: in bash, in the workspace folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.workspace.agent_api import ROUTES, AgentApi, agent_api
from tests.unit.workspace.samples import AGENT_ID, BOARD_ID, HOSTILE, LAYOUTS, ROLES, SIZES, Size, render
from worker.workspace.files import Role
from worker.workspace.rendering import RenderedWorkspace
from worker.workspace.tokens import mint_token, with_token

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")),
    reason="runs the agent's shell lines: needs bash and curl",
)

LEAD_ONLY = {
    route for route in ROUTES if re.search(r"POST .*/(tasks|agents)$|GET .*/agents$|nudge|ask-user", route)
}
MAIN_ONLY = {route for route in ROUTES if "/agent/gateway/" in route}
MAIN = MAIN_ONLY | {
    route for route in ROUTES if re.search(r"healthz|heartbeat|agent/boards$|/memory$", route)
}
MAY_USE = {"member": ROUTES.keys() - LEAD_ONLY - MAIN_ONLY, "lead": ROUTES.keys() - MAIN_ONLY, "main": MAIN}


def blocks(text: str) -> list[str]:
    """The bash blocks of a Markdown text that call something."""
    return [
        block
        for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if "curl" in block
    ]


def load_line(text: str) -> str:
    """The line that the file tells its reader to run first."""
    (line,) = {match[0] for match in re.finditer(r"^export \$\(.*$", text, re.MULTILINE)}
    return line


def deliver(workspace: RenderedWorkspace, token: str, folder: Path) -> None:
    for name, file in workspace.items():
        text = with_token(file.text, token) if file.carries_token else file.text
        (folder / name).write_text(text, encoding="utf-8")


def run(script: str, folder: Path) -> None:
    """Run a block in a bare environment, so that it can only use what is in the file.

    Raises if a line fails.
    """
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)


def run_all(workspace: RenderedWorkspace, api: AgentApi, folder: Path) -> int:
    """Run each block of each file in a shell of its own; returns the number of curl lines in them."""
    deliver(workspace, api.token, folder)
    shells: list[str] = []
    for file in workspace.values():
        for block in blocks(file.text):
            loaded = block if "export $(" in block else f"{load_line(file.text)}\n{block}"
            shells.append(f"(\nunset BASE_URL AUTH_TOKEN\n{loaded})\n")
    run("\n".join(shells), folder)
    return sum(len(re.findall(r"^curl ", shell, re.MULTILINE)) for shell in shells)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("family", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_every_curl_line_works(role: Role, family: str, size: Size, tmp_path: Path) -> None:
    with agent_api(mint_token()) as api:
        lines = run_all(render(role, size, family, api.url), api, tmp_path)
    assert api.complaints == []
    assert len(api.calls) == lines > 5
    assert {call.route for call in api.calls} == MAY_USE[role]
    if role != "main":
        boards = [board for call in api.calls for board in re.findall("/boards/([^/]+)", call.path)]
        assert set(boards) == {BOARD_ID}
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("role", ROLES)
def test_a_hostile_name_arrives_as_it_is(role: Role, tmp_path: Path) -> None:
    with agent_api(mint_token()) as api:
        run_all(render(role, "hostile", "entries", api.url), api, tmp_path)
    names = {call.body["name"] for call in api.calls if call.route.endswith("/heartbeat")}
    (name,) = names
    assert name.startswith("Bobby\"; rm -rf /' \\ $(touch planted) `touch planted` ${HOME} %s JSON ```")
    assert name == " ".join(name.split())
    assert len(name) > len(HOSTILE) // 2


@pytest.mark.parametrize(("role", "board"), [("member", BOARD_ID), ("lead", BOARD_ID), ("main", None)])
def test_heartbeat_names_the_agents_board(role: Role, board: str | None, tmp_path: Path) -> None:
    with agent_api(mint_token()) as api:
        run_all(render(role, "fullest", "list", api.url), api, tmp_path)
    beats = [call.body for call in api.calls if call.route.endswith("/heartbeat")]
    assert len(beats) == 3  # the Tools, the heartbeat and the bootstrap text
    assert all(beat == {"name": "Ada Byron", "board_id": board, "status": "online"} for beat in beats)


@pytest.mark.parametrize("family", LAYOUTS)
def test_the_load_line_takes_the_last_credentials_and_runs_nothing(family: str, tmp_path: Path) -> None:
    with agent_api(mint_token()) as api:
        workspace = render("member", "hostile", family, api.url)
        deliver(workspace, api.token, tmp_path)
        name = LAYOUTS[family].credentials_in
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(f"AUTH_TOKEN=$(touch${{IFS}}planted)\n{text}", encoding="utf-8")
        run(f'{load_line(text)}\ntest "$AUTH_TOKEN" = {api.token}\ntest "$BASE_URL" = {api.url}', tmp_path)
    assert not (tmp_path / "planted").exists()


def test_the_server_refuses_what_is_not_in_the_contract(tmp_path: Path) -> None:
    """Without this, a server that accepts everything would prove nothing."""
    token, json = '-H "X-Agent-Token: $AUTH_TOKEN"', '-H "Content-Type: application/json"'
    wrong = [
        f"$BASE_URL/api/v1/agent/nope {token}",
        "$BASE_URL/api/v1/agent/boards",
        f"-X PATCH $BASE_URL/api/v1/agent/boards/{BOARD_ID}/tasks/{AGENT_ID} {token} {json} "
        """-d '{"status": "finished"}'""",
        f"""-X POST $BASE_URL/api/v1/agent/heartbeat {token} {json} -d '{{"name": "x"'""",
    ]
    with agent_api(mint_token()) as api:
        for line in wrong:
            credentials = f"BASE_URL={api.url} AUTH_TOKEN={api.token}"
            run(f"{credentials}\nif curl -sS --fail-with-body {line}; then exit 1; fi", tmp_path)
    assert len(api.complaints) == len(wrong)
