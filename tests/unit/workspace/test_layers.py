"""Layers of templates: which counts, what they may hold, and how they fail (rules.md 49)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.workspace.samples import _GATEWAY, BASE_URL, LAYOUTS, facts
from worker.workspace.files import Role
from worker.workspace.layers import Layers, LayerTemplate, Scope, name_fault
from worker.workspace.overrides import INPUT_LIMIT, PARTS_LIMIT, TemplateError
from worker.workspace.rendering import RenderedWorkspace, render_workspace
from worker.workspace.tokens import PLACEHOLDER


def template(
    name: str, text: str, scope: Scope = "board", *, version: int = 1, plain: bool = False
) -> LayerTemplate:
    return LayerTemplate(scope, "x", name, version, plain, "", text, f"{scope} X")


def rendered(
    *templates: LayerTemplate, role: Role = "member", family: str = "list", skip: bool = False, **columns: str
) -> RenderedWorkspace:
    agent, board, user = facts(role, "fullest")
    layers = Layers(templates, plain_overrides=columns.pop("overrides", "") == "plain")
    return render_workspace(
        replace(agent, **columns),  # type: ignore[arg-type]
        board,
        _GATEWAY,
        user,
        BASE_URL,
        LAYOUTS[family],
        layers=layers,
        skip_bad_overrides=skip,
    )


def refusal(*templates: LayerTemplate) -> str:
    with pytest.raises(TemplateError) as raised:
        rendered(*templates)
    assert raised.value.reason_code == "broken_layer"
    return str(raised.value)


def test_the_nearest_layer_counts_and_an_agents_own_column_before_all() -> None:
    scopes: list[Scope] = ["organization", "gateway", "board", "role", "agent"]
    layered = [template("SOUL.md", f"of the {scope}", scope) for scope in scopes]
    for number, scope in enumerate(scopes, 1):
        for some in (layered[:number], layered[:number][::-1]):
            assert rendered(*some)["SOUL.md"].text == f"of the {scope}"
    assert rendered(*layered, soul_template="my own")["SOUL.md"].text == "my own"
    assert rendered(*layered, soul_template="  ")["SOUL.md"].text == "of the agent"
    shipped = rendered()
    assert {name: file for name, file in rendered(*layered).items() if name != "SOUL.md"} == {
        name: file for name, file in shipped.items() if name != "SOUL.md"
    }


def test_a_template_knows_what_an_override_knows_and_the_role() -> None:
    soul = template("SOUL.md", "{{ agent_name }} {{ role }} {{ tools_file }}{% if board_name %}!{% endif %}")
    assert rendered(soul)["SOUL.md"].text == "Ada Byron member TOOLS.md!"
    assert rendered(soul, role="main", family="entries")["SOUL.md"].text == "Ada Byron main AGENTS.md"
    assert "SOUL.md of board X, version 7, line 2: unknown name 'nobody'" in refusal(
        template("SOUL.md", "a\n{{ nobody }}", version=7)
    )
    assert "auth_token" in refusal(template("SOUL.md", "{{ auth_token }}"))
    assert "a loop is not allowed in a layer's template" in refusal(
        template("SOUL.md", "{% for x in agent_name %}{% endfor %}")
    )


def test_the_token_comes_from_the_shipped_template_whatever_a_layer_holds() -> None:
    agents = template("AGENTS.md", f"## Tools\n\nAUTH_TOKEN=planted {PLACEHOLDER}")
    carrier = rendered(agents, template("TOOLS.md", "no token here"), family="entries")["AGENTS.md"]
    assert carrier.text.startswith("## Tools\n\nAUTH_TOKEN=planted\n\n## Tools")
    assert carrier.text.count(PLACEHOLDER) == 1
    assert rendered(template("TOOLS.md", "no token here"))["TOOLS.md"].carries_token


def test_parts_are_those_of_the_same_layer() -> None:
    soul = template(
        "SOUL.md", '{% if role %}{% include "parts/a" %}{% endif %}\n{% include "parts/a" %}\nend'
    )
    part = template("parts/a", '[{{ agent_name }} {% include "parts/b" %}]\n')
    deep = template("parts/b", "{% raw %}", plain=True)
    text = "[Ada Byron {% raw %}]\n[Ada Byron {% raw %}]\nend"
    assert rendered(soul, part, deep)["SOUL.md"].text == text
    assert "parts/a" not in rendered(soul, part, deep)
    other = replace(part, target="y")
    assert (
        "SOUL.md of board X, version 1, line 1: it includes parts/a, which its layer does not have"
        in refusal(soul, other, deep)
    )
    broken = template("parts/b", "\n{{ x }}", version=3)
    assert "the part parts/b of board X, version 3, line 2: unknown name 'x'" in refusal(soul, part, broken)


@pytest.mark.parametrize(
    "include",
    [
        "{% include agent_name %}",
        '{% include "SOUL.md" %}',
        '{% include "parts/a" ignore missing %}',
        '{% include "parts/a" without context %}',
        '{% include ["parts/a", "parts/b"] %}',
        '{% import "parts/a" as a %}',
        '{% extends "parts/a" %}',
    ],
)
def test_other_includes_are_refused(include: str) -> None:
    assert "SOUL.md of board X, version 1, line 1: " in refusal(
        template("SOUL.md", include), template("parts/a", "a"), template("parts/b", "b")
    )


def test_parts_are_bounded_in_depth_size_and_time() -> None:
    def chain(length: int) -> list[LayerTemplate]:
        links = [template(f"parts/{n}", f'{n}{{% include "parts/{n + 1}" %}}') for n in range(1, length)]
        return [template("SOUL.md", '{% include "parts/1" %}'), *links, template(f"parts/{length}", "end")]

    assert rendered(*chain(5))["SOUL.md"].text == "1234end"
    assert "more than 5 deep" in refusal(*chain(6))
    # A part that was rendered before, in a place that is less deep, counts in all its depth.
    once, later = '{% include "parts/1" %}', '{% include "parts/9" %}'
    for text in (once + later, later + once):
        nine = template("parts/9", once)
        assert "more than 5 deep" in refusal(template("SOUL.md", text), nine, *chain(5)[1:])
    circle = [template("parts/1", '{% include "parts/2" %}'), template("parts/2", '{% include "parts/1" %}')]
    assert (
        "the part parts/2 of board X, version 1, line 1: it includes parts/1, in which it stands"
        in refusal(template("SOUL.md", '{% include "parts/1" %}'), *circle)
    )
    # Doubled at each level, it would be rendered thousands of times.
    many = '{% include "parts/NEXT" %}' * 1_000
    levels = [template(f"parts/{n}", many.replace("NEXT", str(n + 1))) for n in range(1, 5)]
    assert "SOUL.md" not in rendered(
        template("SOUL.md", many.replace("NEXT", "1")), *levels, template("parts/5", "")
    )
    large = [template(f"parts/{n}", "x" * INPUT_LIMIT, plain=True) for n in range(PARTS_LIMIT // INPUT_LIMIT)]
    all_of_them = "".join(f'{{% include "{part.name}" %}}' for part in large)
    assert "longer than 256 KB" in refusal(template("SOUL.md", all_of_them), *large)
    assert "longer than 64 KB" in refusal(template("SOUL.md", "x" * (INPUT_LIMIT + 1), plain=True))


def test_plain_text_is_delivered_as_it_is() -> None:
    text = "Use ${{ secrets.TOKEN }} and {% include 'x' %} and {{ .Values.name }"
    assert rendered(template("SOUL.md", text, plain=True))["SOUL.md"].text == text
    assert rendered(soul_template=text, overrides="plain")["SOUL.md"].text == text
    assert "set it again with --plain" in refusal(template("SOUL.md", text))
    with pytest.raises(TemplateError, match="provisioner template overrides plain --agent"):
        rendered(soul_template=text)


def test_a_rotation_goes_on_without_what_cannot_be_rendered() -> None:
    broken = [template(name, "{{ nobody }}") for name in ("SOUL.md", "AGENTS.md")]
    made = rendered(*broken, skip=True)
    assert not {"SOUL.md", "AGENTS.md"} & set(made)
    assert (
        "SOUL.md was left as it is, and the rest was done: SOUL.md of board X, version 1" in made.warnings[1]
    )
    carrier = rendered(*broken, skip=True, family="entries")
    assert carrier["AGENTS.md"].text == rendered(family="entries")["AGENTS.md"].text
    assert "AGENTS.md was made from the shipped template instead" in carrier.warnings[0]


def test_a_file_that_renders_to_nothing_is_not_delivered() -> None:
    made = rendered(template("SOUL.md", "{% if role == 'lead' %}x{% endif %}"))
    assert "SOUL.md" not in made
    assert made.warnings[0].startswith("SOUL.md of board X, version 1, renders to nothing, so no SOUL.md")


def test_a_file_beyond_the_fixed_set_is_unsupported_until_a_release_takes_it() -> None:
    runbook = template("RUNBOOK.md", "Call {{ user_name }}.")
    assert rendered(runbook).unsupported["RUNBOOK.md"] == len("Call Grace Hopper.")
    layout = replace(LAYOUTS["list"], files=LAYOUTS["list"].files | {"RUNBOOK.md"})
    agent, board, user = facts("member", "fullest")
    made = render_workspace(agent, board, _GATEWAY, user, BASE_URL, layout, layers=Layers((runbook,)))
    assert made["RUNBOOK.md"].text == "Call Grace Hopper."


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("SOUL.md", None),
        ("RUNBOOK.md", None),
        ("parts/house-rules", None),
        ("TOOLS.md", "the agent's token"),
        ("Tools.md", "TOOLS.md holds the agent"),
        ("memory.md", "would be taken for MEMORY.md"),
        ("../SOUL.md", "can be no template's name"),
        ("parts/../x", "can be no template's name"),
        ("SOUL", "can be no template's name"),
        ("", "can be no template's name"),
        ("a\nB.md", "can be no template's name"),
    ],
)
def test_names(name: str, fault: str | None) -> None:
    found = name_fault(name)
    assert found is None if fault is None else fault in str(found)


def test_what_a_change_of_a_part_reaches() -> None:
    soul = template("SOUL.md", '{% include "parts/a" %}')
    layers = Layers((soul, template("parts/a", '{% include "parts/b" %}'), template("parts/b", "b")))
    assert layers.uses(soul, ["parts/b"])
    assert layers.uses(soul, ["parts/a", "IDENTITY.md"])
    assert layers.uses(soul, ["SOUL.md"])
    assert not layers.uses(soul, ["parts/c", "IDENTITY.md"])
