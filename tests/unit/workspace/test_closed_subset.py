"""An override renders or is refused: nothing else ever happens (rules.md 8)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.workspace.overrides import TemplateError, render_override

CONTEXT = {"agent_name": "Ada", "user_notes": "", "board_name": "Launch \ud800\x00"}

ODD = [
    "{% if 1e999 > 1 %}x{% endif %}",
    "{{ 1e999 }}",
    "{% if " + "9" * 400 + " > 1 %}x{% endif %}",
    "{% if 9e15 < 1e400 %}{% endif %}",
    "{{ 'a'|default('b', boolean=true, boolean=false) }}",
    "{{ 'a'|replace('b') }}",
    "{{ 'a'|replace('b', 'c', count='d') }}",
    "{{ 'a'|replace(old='a', new='b', old='c') }}",
    "{{ 'a'|replace('a', 'b', 1, 2, 3) }}",
    "{{ 'a'|join(1, 2) }}",
    "{{ 3|join(4) }}",
    "{{ 'a'|upper(1) }}",
    "{{ 'a'|trim(context=1) }}",
    "{{ 'a'|trim(value='b') }}",
    "{{ 'a'|length|length|replace(none, true) }}",
    "{{ 'a'|default }}",
    "{{ none|default(nope) }}",
    "{{ nope|default('x') }}",
    "{% if 1 < 'a' < 2 %}x{% endif %}",
    "{% if 'a' in 1 %}x{% endif %}",
    "{% if none < none %}x{% endif %}",
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
    "{{ " + "not " * 5_000 + "1 }}",
    "{{ 1" + " < 1" * 1_500 + " }}",
    "{{ 1" + " and 1" * 1_500 + " }}",
    "{{ 'a'" + "|upper" * 3_000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{% if 1 %}" + "{% elif 1 %}" * 900 + "{% endif %}",
    "\x00{{ agent_name }}\ud800",
    "{{ '\ud800\x00' }}",
    "{{ \ufb01eld }}{{ \u0435 }}",
    "{% raw %}never closed",
    "{# never closed",
    "{{ never closed",
    "{% if never %}closed",
    "{%- raw -%}{{ x }}{%- endraw +%}",
    "# for x in y\n## z",
    "{{ self }}{{ loop }}{{ caller }}{{ super() }}",
    "{{ __import__ }}{{ l_0_agent_name }}{{ environment }}{{ context }}",
    "{{ true }}{{ True }}{{ None }}{{ none }}{{ False }}",
    "{{ class }}{{ def }}{{ lambda }}",
    "{{ 'x' 'y' }}",
    "{{ 1_000 }}{{ 0x10 }}{{ 1.5e3 }}",
]
PIECES = [
    *(
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        " if ",
        " elif ",
        " else ",
        " endif ",
        " raw ",
        " endraw ",
    ),
    *(
        "agent_name",
        "user_notes",
        "nope",
        "'a'",
        '"',
        "'",
        "1",
        "1e999",
        "9" * 40,
        "none",
        "true",
        "=",
        "==",
        "<",
        "in",
    ),
    *(
        "|default(",
        "|replace(",
        "|join(",
        "|length",
        "|trim(",
        "|upper",
        ")",
        "(",
        ",",
        "boolean=",
        "count=",
        "not",
    ),
    *(
        " and ",
        " or ",
        "\n",
        "text",
        "\x00",
        "\ud800",
        ".",
        "[",
        "]",
        "~",
        "+",
        "*",
        "**",
        "is",
        "for",
        "set",
        "x",
    ),
]


@pytest.mark.parametrize("source", ODD)
def test_odd_overrides_render_or_are_refused(source: str) -> None:
    refusal = None
    try:
        assert render_override("the SOUL.md override", source, CONTEXT).encode() is not None
    except TemplateError as error:
        refusal = error
    assert refusal is None or (refusal.line >= 1 and str(refusal).startswith("the SOUL.md override, line "))


@settings(max_examples=60)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=30))
def test_any_pieces_of_templates_render_or_are_refused(source: str) -> None:
    for text in (source, f"{{{{ {source} }}}}", f"{{% if {source} %}}x{{% endif %}}"):
        try:
            render_override("the SOUL.md override", text, CONTEXT)
        except TemplateError:
            continue


@pytest.mark.parametrize(
    "persona",
    [
        "Deploy with ${{ secrets.TOKEN }}.",
        "Hello {{user.name}}!",
        "{{#each items}}{{this}}{{/each}}",
        "{{ $labels.instance }} is down",
        "{% for x in y %}{{ x }}{% endfor %}",
        "Dear {{ customer }}",
    ],
)
def test_a_persona_that_holds_braces_of_another_language_is_told_the_cure(persona: str) -> None:
    with pytest.raises(TemplateError, match=r"\{% raw %\} before it and \{% endraw %\} after it"):
        render_override("the SOUL.md override", persona, CONTEXT)
    assert render_override("the SOUL.md override", f"{{% raw %}}{persona}{{% endraw %}}", CONTEXT) == persona
