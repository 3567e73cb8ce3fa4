"""An error in an operator's template or a user's override names the template and the line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.workspace.samples import BASE_URL, GATEWAY_ID, LAYOUTS, facts
from worker.cli.doctor.workspaces import _cure
from worker.workspace.context import GatewayFacts
from worker.workspace.files import Role
from worker.workspace.overrides import TemplateError
from worker.workspace.rendering import RenderedWorkspace, render_workspace
from worker.workspace.template_sources import check_folder

GATEWAY = GatewayFacts(GATEWAY_ID, "Office", "ws://127.0.0.1:18789", "~/.openclaw/")
SOUL = "shared/SOUL.md.j2"

FAULTS = {
    "syntax": ("one\n{% if %}", 2),
    "never closed": ("one\n{% if role %}two", 2),
    "unknown tag": ("{% nope %}", 1),
    "unknown filter": ("one\n\n{{ agent_name|nope }}", 3),
    "unknown test": ("{{ 1 is nope }}", 1),
    "unknown name": ("one\n{{ nope }}", 2),
    "attribute of an unknown name": ("one\n{{ nope.more }}", 2),
    "wrong filter arguments": ("one\n{{ agent_name|replace(1) }}", 2),
    "wrong filter type": ("one\n{{ 3|quoted }}", 2),
    "division by zero": ("one\n{{ 1 / 0 }}", 2),
    "type error": ("one\n{{ 1 + agent_name }}", 2),
    "index": ("{{ [][1] + 1 }}", 1),
    "no number": ("{{ '%d' % agent_name }}", 1),
    "includes itself": (f"one\n{{% include '{SOUL}' %}}", 2),
    "endless macro": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", 1),
    "includes what is not there": ("one\n{% include 'nope.md.j2' %}", 2),
    "extends what is not there": ("{% extends 'nope.md.j2' %}", 1),
    "imports what is not there": ("\n{% import 'nope.md.j2' as x %}", 2),
    "a call of no function": ("one\n{{ agent_name() }}", 2),
    "keyword given twice": ("{{ agent_name|trim(chars='a', chars='b') }}", 1),
    "too large": ("{{ 'x' * (10 ** 30) }}", 1),
    "no end of a comment": ("one\n{# two", 2),
    "a loop without end": ("one\n{% for i in range(10 ** 12) %}x{% endfor %}", 2),
    "a text without end": ("{% for a in 'x' * 2000 %}\n{{ 'x' * 1000 }}{% endfor %}", 1),
    "extends nothing": ("{% extends none %}", 1),
}


def render(folder: Path | None, family: str = "list", role: Role = "member") -> RenderedWorkspace:
    agent, board, user = facts(role, "fullest")
    return render_workspace(agent, board, GATEWAY, user, BASE_URL, LAYOUTS[family], folder)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "board").mkdir()
    return tmp_path


@pytest.mark.parametrize(("source", "line"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_template_is_named_with_its_line(own: Path, source: str, line: int) -> None:
    (own / SOUL).write_text(source)
    with pytest.raises(TemplateError) as refusal:
        render(own)
    assert refusal.value.template == f"TEMPLATES_DIR/{SOUL}"
    assert refusal.value.line == line
    assert str(own) not in str(refusal.value)


def test_a_rendering_that_is_too_long_names_the_value_that_makes_it_so() -> None:
    agent, board, user = facts("member", "fullest")
    assert user is not None
    user = replace(user, notes="n" * 2**21)
    with pytest.raises(
        TemplateError, match=r"longer than 1024 KB, of which user_notes alone has 2,097,152 ch"
    ):
        render_workspace(agent, board, GATEWAY, user, BASE_URL, LAYOUTS["list"])


def test_a_template_of_odd_characters_is_delivered_as_utf8_can_hold_them(own: Path) -> None:
    (own / SOUL).write_text("\ufeffhalf a pair: {{ '\\ud800' }}", encoding="utf-8")
    assert render(own)["SOUL.md"].text == "half a pair: \ufffd"


def test_what_is_no_file_is_named_and_not_passed_over(own: Path) -> None:
    (own / SOUL).mkdir()
    with pytest.raises(ValueError, match=r"TEMPLATES_DIR/shared/SOUL.md.j2 is not a plain file"):
        check_folder(own)
    (own / SOUL).rmdir()
    os.mkfifo(own / SOUL)
    with pytest.raises(ValueError, match="is not a plain file"):
        check_folder(own)
    (own / SOUL).unlink()
    (own / "shared" / "SOUL.md.J2").write_text("x")
    with pytest.raises(ValueError, match=r"write its \.j2 in lower case"):
        check_folder(own)


def test_a_template_that_is_no_utf8_is_named_at_start_and_at_use(own: Path) -> None:
    (own / SOUL).write_bytes(b"one\nGr\xfc\xdfe\n")
    with pytest.raises(ValueError, match=r"TEMPLATES_DIR/shared/SOUL.md.j2, line 2: it is not UTF-8"):
        check_folder(own)
    with pytest.raises(TemplateError, match=r"TEMPLATES_DIR/shared/SOUL.md.j2, line 2: it is not UTF-8"):
        render(own)


@pytest.mark.parametrize("name", ["shared/SOUL.md", "SOUL.md", "board/notes.txt", "soul.md.jinja"])
def test_a_file_that_would_not_be_used_is_named(own: Path, name: str) -> None:
    (own / "README.md").write_text("ours")
    (own / ".git").mkdir()
    (own / ".git" / "SOUL.md").write_text("not ours")
    check_folder(own)
    (own / name).write_text("x")
    with pytest.raises(ValueError, match=f"holds {name}, which is not used: .* rename it to {name}.j2"):
        check_folder(own)


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_token_that_is_missing_or_elsewhere_is_told_of_the_right_file(own: Path, family: str) -> None:
    (own / "board" / "TOOLS.md.j2").write_text("# Tools\n")
    with pytest.raises(
        TemplateError, match="must stand in it exactly once, and stands there 0 times"
    ) as lacking:
        render(own, family)
    assert lacking.value.template == "TEMPLATES_DIR/board/TOOLS.md.j2"
    (own / "board" / "TOOLS.md.j2").unlink()
    (own / SOUL).write_text("# Soul\n\nmine: {{ auth_token }}\n")
    with pytest.raises(TemplateError, match="may stand in the TOOLS template alone") as elsewhere:
        render(own, family)
    assert (elsewhere.value.template, elsewhere.value.line) == (f"TEMPLATES_DIR/{SOUL}", 3)


def test_doctor_tells_an_own_template_from_a_shipped_one(own: Path) -> None:
    agent, _, _ = facts("member", "fullest")
    record = type("Record", (), {"agent": agent, "shown_name": agent.name})()
    own_fault = _cure(record, TemplateError(f"TEMPLATES_DIR/{SOUL}", 2, "x"))
    shipped = _cure(record, TemplateError(SOUL, 2, "x"))
    assert "correct that file of TEMPLATES_DIR" in own_fault
    assert "shipped" not in own_fault
    assert "the shipped template is at fault" in shipped


@pytest.mark.parametrize("override", ["{# only a comment #}", "{% if user_notes == 'nope' %}x{% endif %}"])
def test_an_override_that_renders_to_nothing_says_that_nothing_is_delivered(override: str) -> None:
    agent, board, user = facts("member", "fullest")
    agent = replace(agent, soul_template=override)
    rendered = render_workspace(agent, board, GATEWAY, user, BASE_URL, LAYOUTS["list"])
    assert "SOUL.md" not in rendered
    [warning] = rendered.warnings
    assert "so no SOUL.md is delivered: write its text into agents.soul_template" in warning


def test_an_own_template_that_renders_to_nothing_says_so_too(own: Path) -> None:
    (own / SOUL).write_text("{# only a comment #}")
    [warning] = render(own).warnings
    assert warning.startswith(f"TEMPLATES_DIR/{SOUL} renders to nothing, so no SOUL.md is delivered")


def test_a_refused_override_can_be_left_out_and_is_named() -> None:
    agent, board, user = facts("member", "fullest")
    agent = replace(agent, soul_template="one\n{{ nope }}")
    layout = LAYOUTS["list"]
    with pytest.raises(TemplateError):
        render_workspace(agent, board, GATEWAY, user, BASE_URL, layout)
    rendered = render_workspace(agent, board, GATEWAY, user, BASE_URL, layout, skip_bad_overrides=True)
    assert "SOUL.md" not in rendered
    assert "TOOLS.md" in rendered
    assert (
        "SOUL.md was left as it is, and the rest was done: the SOUL.md override, line 2"
        in rendered.warnings[0]
    )


def test_the_main_agents_overrides_know_its_session_key() -> None:
    agent, board, user = facts("main", "fullest")
    agent = replace(agent, identity_template="{{ main_session_key }}")
    rendered = render_workspace(agent, board, GATEWAY, user, BASE_URL, LAYOUTS["list"])
    assert rendered["IDENTITY.md"].text == f"agent:mc-gateway-{GATEWAY_ID}:main"
