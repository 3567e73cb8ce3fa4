"""Whatever is known to be secret of an agent is in no diff of its files (rules.md 29)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit.workspace.samples import render
from worker.agents.token_choice import Token
from worker.agents.workspace_plan import Step, WorkspacePlan
from worker.gateway.address import GatewayAddress
from worker.gateway.agent_files import AgentFiles
from worker.gateway.client import GatewayClient
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.masking import forget_all
from worker.workspace.plan import LiveFile

SECRET = "correct-horse-battery"
"""Nothing in its form gives it away."""
TOKEN = Token(SECRET, None, "reused")


@pytest.fixture(autouse=True)
def _nothing_in_hand() -> Iterator[None]:
    forget_all()
    yield
    forget_all()


def plan_of(**live: str) -> WorkspacePlan:
    """SOUL.md and TOOLS.md are to be replaced; ``live``: what the gateway has of them."""
    client = GatewayClient(GatewayAddress("ws://127.0.0.1:9", "gateway-token"), DeviceKey.generate())
    files = AgentFiles(client, Dialect.from_hello("2026.2.12", frozenset()), "mc-1")
    rendered = render("member", "fullest", "list")
    plan = WorkspacePlan(rendered, files, {})
    for name in ("SOUL.md", "TOOLS.md"):
        content = live.get(name.removesuffix(".md"), "Nothing.\n")
        found = LiveFile(len(content.encode()), None, content)
        plan.steps[name] = Step(rendered[name], "update", rendered[name].text, found)
    return plan


def soul_diff(plan: WorkspacePlan) -> str:
    report = plan.report(with_diffs=True)
    assert SECRET not in str(report)
    return str(report["SOUL.md"]["diff"])


NOTED = f"My word is {SECRET}, in my own words.\n"
MASKED = "-My word is <masked>, in my own words."


def test_what_nobody_knows_to_be_a_secret_is_shown() -> None:
    assert f"-{NOTED}" in str(plan_of(SOUL=NOTED).report(with_diffs=True)["SOUL.md"]["diff"])


@pytest.mark.parametrize("known_as", ["token", "outgoing"])
def test_a_token_in_hand_is_masked_wherever_the_agent_noted_it(known_as: str) -> None:
    plan = plan_of(SOUL=NOTED)
    setattr(plan, known_as, TOKEN)
    assert MASKED in soul_diff(plan)


def test_the_token_that_replaces_another_is_masked_as_soon_as_it_is_made() -> None:
    plan = replace(plan_of(SOUL=NOTED), outgoing=Token("what-it-was-before", None, "reused"))
    plan.report(with_diffs=True)
    plan.token = TOKEN
    assert MASKED in soul_diff(plan)


def test_the_gateways_token_is_masked() -> None:
    assert MASKED in soul_diff(replace(plan_of(SOUL=NOTED), gateway_token=SECRET))


@pytest.mark.parametrize("line", ["AUTH_TOKEN={}", "- `AUTH_TOKEN = {}`", "DEPLOY_PASSWORD={}"])
def test_a_secret_that_one_file_notes_is_masked_in_the_others(line: str) -> None:
    assert MASKED in soul_diff(plan_of(SOUL=NOTED, TOOLS=line.format(SECRET)))
