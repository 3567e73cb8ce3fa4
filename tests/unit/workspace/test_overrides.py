from __future__ import annotations

import time

import pytest

from worker.workspace.display_text import clean
from worker.workspace.overrides import INPUT_LIMIT, OUTPUT_LIMIT, TemplateError, render_override
from worker.workspace.tokens import PLACEHOLDER

CONTEXT = {
    "agent_name": "ada b\u00fcron",
    "user_notes": "",
    "board_name": "Launch",
    "long": "x" * 200_000,
    "too_long": "x" * (OUTPUT_LIMIT + 1),
    "auth_token": PLACEHOLDER,
}


def rendered(source: str) -> str:
    return render_override("the SOUL.md override", source, CONTEXT)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("I am {{ agent_name }}.", "I am ada b\u00fcron."),
        (
            "{{ agent_name|title }} {{ agent_name|upper }} {{ 'AB'|lower }}",
            "Ada B\u00fcron ADA B\u00dcRON ab",
        ),
        ("{{ user_notes|default('none', true) }}", "none"),
        ("{{ user_notes|default(board_name, boolean=true) }}", "Launch"),
        ("{{ user_notes|default('none') }}", ""),
        ("[{{ ' a '|trim }}] [{{ 'xax'|trim('x') }}]", "[a] [a]"),
        ("{{ agent_name|replace('ada', 'eve') }} {{ 'aaa'|replace('a', 'b', 2) }}", "eve b\u00fcron bba"),
        ("{{ board_name|length }} {{ 'abc'|join('-') }}", "6 a-b-c"),
        ("{% if user_notes %}a{% elif board_name == 'Launch' %}b{% else %}c{% endif %}", "b"),
        ("{% if not user_notes and 'La' in board_name %}x{% endif %}", "x"),
        ("{% if board_name|length > 3 or user_notes != '' %}x{% endif %}", "x"),
        ("{# a comment #}{% raw %}{{ as is }}{% endraw %}<b>&", "{{ as is }}<b>&"),
        ("two\n{%- if true %}\n lines{% endif %}\n", "two\n lines\n"),
        (f"no {PLACEHOLDER}\ufeff here\r\n", "no  here\n"),
        (f"{{{{ '{PLACEHOLDER}'|replace('X', 'Y') }}}}", ""),
    ],
)
def test_the_subset_renders(source: str, text: str) -> None:
    assert rendered(source) == text


@pytest.mark.parametrize(
    ("construct", "reason"),
    [
        ("{% for x in agent_name %}{{ x }}{% endfor %}", "a loop"),
        ("{{ agent_name.upper }}", "attribute or item"),
        ("{{ agent_name['x'] }}", "attribute or item"),
        ("{{ agent_name[0:2] }}", "attribute or item"),
        ("{{ agent_name() }}", "a call"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "a call"),
        ("{{ ''.__class__.__mro__ }}", "attribute or item"),
        ("{{ agent_name|attr('x') }}", "the filter attr"),
        ("{{ agent_name|safe }}", "the filter safe"),
        ("{{ agent_name|nope }}", "the filter nope"),
        ("{{ 1 + 1 }}", "arithmetic"),
        ("{{ 9 ** 9 ** 9 }}", "arithmetic"),
        ("{{ -1 }}", "arithmetic"),
        ("{{ 'a' ~ 'b' }}", "arithmetic"),
        ("{{ 'a' * 9 }}", "arithmetic"),
        ("{% set x = 1 %}", "a set"),
        ("{% set x %}y{% endset %}", "a set"),
        ("{% macro m() %}{% endmacro %}", "a macro"),
        ("{% call agent_name() %}{% endcall %}", "a macro"),
        ("{% include 'board/TOOLS.md.j2' %}", "an include"),
        ("{% import 'x' as y %}", "an include or import"),
        ("{% from 'x' import y %}", "an include or import"),
        ("{% extends 'x' %}", "an include or import"),
        ("{% block b %}{% endblock %}", "block"),
        ("{% filter upper %}x{% endfilter %}", "filterblock"),
        ("{% with x = 1 %}{% endwith %}", "with"),
        ("{% autoescape true %}{% endautoescape %}", "not allowed"),
        ("{{ agent_name if board_name else user_notes }}", "an inline if"),
        ("{{ agent_name is defined }}", "a test"),
        ("{{ ['a'] }}", "a list"),
        ("{{ ('a', 'b') }}", "a list, tuple"),
        ("{{ {'a': 1} }}", "dictionary"),
        ("{{ agent_name|replace(agent_name|upper, 'x') }}", "only names and constants"),
        ("{{ agent_name|default(*board_name) }}", "unpacked"),
        ("{{ agent_name|default(**board_name) }}", "unpacked"),
        ("{{ unknown_name }}", "unknown name 'unknown_name'"),
        ("{{ unknown_name|default('x') }}", "unknown name"),
        ("{% if unknown_name %}{% endif %}", "unknown name"),
        ("{{ range }}", "unknown name"),
        ("{{ self }}", "unknown name"),
        ("{{ loop }}", "unknown name"),
        ("{{ auth_token }}", "auth_token may be used by the Tools template only"),
        ("{% if auth_token == 'a' %}{% endif %}", "auth_token"),
        ("{{ agent_name|default(auth_token) }}", "auth_token"),
        ("{{ too_long }}", "too_long is longer than 256 KB"),
        ("{{ agent_name", "unexpected"),
        ("{% if agent_name %}", "Unexpected end"),
        ("{% nope %}", "unknown tag"),
        ("{{ agent_name|upper(1) }}", "upper"),
        ("{% if board_name|length > 'x' %}{% endif %}", "not supported"),
        ("{{ agent_name|replace('a', 'b', 'c') }}", "not supported"),
        ("{{ long|join('--') }}", "longer than 256 KB"),
        (f"{{{{ agent_name|trim('{'x' * 101}') }}}}", "trim takes at most"),
    ],
)
def test_anything_else_is_refused_with_name_and_line(construct: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=r"^the SOUL\.md override, line 3: ") as refusal:
        rendered(f"first\nsecond\n{construct}")
    assert reason in str(refusal.value)
    assert (refusal.value.template, refusal.value.line) == ("the SOUL.md override", 3)


@pytest.mark.parametrize("source", ["{{ NAME }}", "{% NAME %}", "{{ 1|NAME }}", "{{ 1|upper(NAME=1) }}"])
def test_a_refusal_is_no_longer_than_a_person_reads(source: str) -> None:
    with pytest.raises(TemplateError) as refusal:
        rendered(source.replace("NAME", "n" * 60_000))
    assert len(str(refusal.value)) < 1_100
    assert str(refusal.value).endswith("`provisioner template overrides plain --agent AGENT`)")


def test_source_is_bounded_in_bytes() -> None:
    assert rendered("\u00e9" * (INPUT_LIMIT // 2)) == "\u00e9" * (INPUT_LIMIT // 2)
    with pytest.raises(TemplateError, match="longer than 64 KB"):
        rendered("\u00e9" * (INPUT_LIMIT // 2) + "x")


def test_rendering_is_bounded_in_bytes() -> None:
    assert len(rendered("{{ long }}" + "x" * 60_000)) == 260_000
    with pytest.raises(TemplateError, match="longer than 256 KB"):
        rendered("{{ long }}{{ long }}")
    with pytest.raises(TemplateError, match="longer than 256 KB"):
        rendered("{{ long|replace('x', '\u00e9') }}")


EXPENSIVE = {
    "replace of nothing": "{{ long|replace('', '" + "y" * 60_000 + "') }}",
    "replace grows and grows": "{{ agent_name" + "|replace('a', 'aaaaaaaa')" * 30 + " }}",
    "join": "{{ long|join(long) }}",
    "a chain of filters": "{{ long" + "|title" * 9_000 + " }}",
    "many filters without output": "{{ long|title|title|title|length }}" * 600,
    "many outputs": "{{ long }}" * 3_000,
    "many comparisons": "{% if long in long %}{% endif %}" * 1_800,
    "ifs without an end": "{% if true %}" * 4_000,
    "deep ifs": "{% if true %}" * 99 + "{% endif %}" * 99,
    "branches": "{% if user_notes %}" + "{% elif user_notes %}" * 900 + "{% endif %}",
    "long elif": "{% if user_notes %}" + "{% elif user_notes %}" * 2_900 + "{% endif %}",
    "deep brackets": "{{ " + "(" * 30_000 + "1" + ")" * 30_000 + " }}",
    "deep not": "{% if " + "not " * 15_000 + "true %}{% endif %}",
    "many and": "{% if true" + " and true" * 7_000 + " %}{% endif %}",
    "a number without end": "{{ " + "9" * 60_000 + " }}",
    "comments never closed": "{# " * 20_000,
    "openings": "{{" * 30_000,
}


@pytest.mark.parametrize("source", EXPENSIVE.values(), ids=EXPENSIVE)
def test_no_override_takes_long_or_grows_large(source: str) -> None:
    assert len(source) <= INPUT_LIMIT
    began = time.process_time()
    with pytest.raises(TemplateError):
        rendered(source)
    assert time.process_time() - began < 5  # an unbounded one takes minutes, or never ends


def test_output_of_an_override_is_clean_text() -> None:
    text = rendered("a\u202eb\ud800c\u2028d")
    assert text == clean(text) == "abc\nd"
