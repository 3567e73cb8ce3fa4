"""Overrides and layers' templates that reach for what is not theirs, by family, and the process that renders
them within limits: ``python -m tests.unit.workspace.hostile_templates`` prints one line of JSON for each."""

from __future__ import annotations

import encodings.unicode_escape
import json
import os
import resource
import sys
import time
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

import jinja2.debug

from worker.workspace.overrides import (
    INPUT_LIMIT,
    Source,
    TemplateError,
    check_source,
    parts_of,
    plain_text,
    render_layered,
    render_override,
)
from worker.workspace.tokens import PLACEHOLDER

NAME = "the SOUL.md override"
CANARY = "kanarienvogel-7Q"
"""Stands in the environment, in a file and in the other agents' tokens of that process."""
MOST_MEMORY = 50 * 1024 * 1024
MOST_CPU_S = 1.0
_GIVEN_UP_CPU_S = 20
_LONG = 200_000


class Hostile(NamedTuple):
    """One attempt. ``parts``: what a layer holds beside it."""

    family: str
    source: str
    parts: dict[str, str] = {}


def corpus() -> list[Hostile]:
    """All attempts, each once."""
    families = {
        "code": _code(),
        "files": _files(),
        "environment": _environment(),
        "tokens": _tokens(),
        "format": _formats(),
        "CPU": _cpu(),
        "memory": _memory(),
        "syntax": _syntax(),
    }
    unique = {(family, source) for family, sources in families.items() for source in sources}
    return [*(Hostile(*each) for each in sorted(unique)), *_bombs()]


def _code() -> Iterator[str]:
    roots = [
        *(
            "agent_name",
            "''",
            "1",
            "1.5",
            "true",
            "none",
            "[]",
            "{}",
            "()",
            "self",
            "cycler",
            "joiner",
            "namespace",
        ),
        *("lipsum", "range", "dict", "config", "request", "url_for", "g", "session", "app", "loop", "caller"),
        *(
            "varargs",
            "kwargs",
            "context",
            "environment",
            "resolve",
            "undefined",
            "missing",
            "concat",
            "_",
            "super",
        ),
        *(
            "__builtins__",
            "__import__",
            "l_0_agent_name",
            "part_0",
            "root",
            "blocks",
            "name",
            "TemplateReference",
        ),
    ]
    reaches = [
        "{root}.__class__.__mro__[1].__subclasses__()",
        "{root}['__cla' + 'ss__']",
        "{root}|attr('__class__')",
        "{root}.__init__.__globals__.os.popen('id').read()",
        "{root}|attr('\\x5f\\x5finit\\x5f\\x5f')|attr('__globals__')",
        "{root}()",
        "{root}",
        "[{root}]|map(attribute='__class__')|list",
        "{root}|default(self.__init__.__globals__)",
    ]
    for root in roots:
        for reach in reaches:
            yield f"{{{{ {reach.format(root=root)} }}}}"
    yield "{% for c in ''.__class__.__base__.__subclasses__() %}{{ c('id', shell=true) }}{% endfor %}"
    yield "{% set x = cycler.__init__.__globals__ %}{{ x.os.system('id') }}"
    yield "{% do agent_name.__class__ %}"
    yield "{% if ''.__class__ %}x{% endif %}"
    yield "{% call(x) agent_name() %}{% endcall %}"
    yield "{% filter attr('__class__') %}x{% endfilter %}"
    yield "{% with x = self %}{{ x.__dict__ }}{% endwith %}"
    yield "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{{ m() }}"
    yield "{% trans %}{{ self }}{% endtrans %}"
    yield "{% debug %}"


def _files() -> Iterator[str]:
    paths = [
        *(
            "/etc/passwd",
            "../../.env",
            "board/TOOLS.md.j2",
            "TOOLS.md",
            "shared/SOUL.md.j2",
            "file:///etc/passwd",
        ),
        *(
            "parts/../TOOLS.md",
            "parts//etc/passwd",
            "parts/",
            "parts/missing",
            "parts/\\u0000",
            "~/.ssh/id_rsa",
        ),
        *("parts/..%2fTOOLS.md", "PARTS/tone", "/proc/self/environ", "\\\\host\\share"),
    ]
    for path in paths:
        yield f'{{% include "{path}" %}}'
        yield f'{{% include "{path}" ignore missing %}}'
        yield f'{{% include ["{path}", "x"] %}}'
        yield f'{{% include "{path}" without context %}}'
        yield f'{{% import "{path}" as x %}}{{{{ x }}}}'
        yield f'{{% from "{path}" import x %}}'
        yield f'{{% extends "{path}" %}}'
        yield f"{{{{ '{path}'|include }}}}{{{{ open('{path}') }}}}"
    yield "{% include agent_name %}"
    yield "{% include 'parts/' ~ agent_name %}"
    yield "{% extends none %}"


def _environment() -> Iterator[str]:
    yield from (
        *(
            "${CANARY}",
            "$CANARY",
            "$(id)",
            "`id`",
            "%(CANARY)s",
            "{CANARY}",
            "<%= ENV['CANARY'] %>",
            "#{ENV['CANARY']}",
        ),
        *(
            "{{ environ }}",
            "{{ env.CANARY }}",
            "{{ getenv('CANARY') }}",
            "{{ os.environ }}",
            "{{ settings }}",
        ),
        *(
            "{{ DATABASE_URL }}",
            "{{ lookup('env', 'CANARY') }}",
            "{{ config.items() }}",
            "{{ secrets.CANARY }}",
        ),
        *(
            "{{ '$CANARY'|expandvars }}",
            "{{ env['CANARY'] }}",
            "${{ env.CANARY }}",
            "{{ '%s'|format(CANARY) }}",
        ),
    )


def _tokens() -> Iterator[str]:
    half = len(PLACEHOLDER) // 2
    first, second = PLACEHOLDER[:half], PLACEHOLDER[half:]
    yield "{{ auth_token }}"
    yield "{{ auth_token|length }}"
    yield "{% if auth_token > 'm' %}x{% endif %}"
    yield "{{ agent_name|replace(agent_name, auth_token) }}"
    yield "{{ agent_name|default(auth_token) }}"
    yield PLACEHOLDER
    yield f"{{{{ '{PLACEHOLDER}' }}}}"
    yield f"{first}{{# #}}{second}"
    yield f"{{{{ '{first}' }}}}{{{{ '{second}' }}}}"
    yield f"{first}{PLACEHOLDER}{second}"
    yield f"{{{{ '{first}X{second}'|replace('X', '') }}}}"
    yield f"{{{{ '{PLACEHOLDER.lower()}'|upper }}}}"
    yield f"{{{{ '{'-'.join(PLACEHOLDER)}'|replace('--', '~')|replace('-', '')|replace('~', '-') }}}}"
    for unseen in ("\u200b", "\ufeff", "\u00ad", "\u2060", "\x00", "\ud800", "\u202e"):
        yield f"{first}{unseen}{second}"
        yield f"{first}{unseen}{first}{unseen}{second}{unseen}{second}"
    yield "{{ token }}{{ tokens }}{{ agents }}{{ agents[0].auth_token }}{{ agent.token }}"


def _formats() -> Iterator[str]:
    for text in (
        *("'%s' % agent_name", "'%c' % 300", "'%999999999d' % 1", "'{0.__class__}'.format(agent_name)"),
        *("'{x.__globals__}'.format_map({'x': range})", "'{:>999999999}'.format(1)", "f'{agent_name}'"),
        *(
            "agent_name.format(1)",
            "agent_name|string.format(1)",
            "'{0}'|format(1)",
            "'%0*d' % (999999999, 1)",
        ),
        *(
            "agent_name|xmlattr",
            "agent_name|pprint",
            "agent_name|tojson",
            "agent_name|urlize",
            "agent_name|filesizeformat",
        ),
        *(
            "agent_name|center(999999999)",
            "agent_name|indent(999999999)",
            "agent_name|wordwrap(1)",
            "agent_name|list",
        ),
        *(
            "agent_name|batch(1)",
            "agent_name|slice(999999)",
            "agent_name|map('upper')",
            "agent_name|select('x')",
        ),
        *(
            "agent_name|groupby('x')",
            "agent_name|sort",
            "agent_name|random",
            "agent_name|round",
            "agent_name|sum",
        ),
    ):
        yield f"{{{{ {text} }}}}"


def _cpu() -> Iterator[str]:
    room = INPUT_LIMIT - 4096
    for text in (
        *(
            "2 ** (2 ** 40)",
            "9 ** 9 ** 9",
            "10 ** 999999",
            "1 << 999999999",
            "range(10 ** 12)|list",
            "-" * room + "1",
        ),
        *("long|join(long)", "long|title|title|title|length", "(" * (room // 2) + "1" + ")" * (room // 2)),
        *("long in long", "long < long", "1" + " < 1" * (room // 4), "1" + " and 1" * (room // 6)),
        *("not " * (room // 4) + "1", "agent_name" + "|upper" * (room // 6), "9" * room, "0x" + "f" * room),
        *(
            "1e" + "9" * 99,
            "1" + "_1" * (room // 2),
            "'" + "\\u0041" * (room // 6) + "'",
            "'" + "\\" * room + "'",
        ),
        *(
            "long|replace('x', 'xx')|replace('x', 'xx')",
            "long|replace('', 'y')",
            "long|trim('x')",
            "long|trim(long)",
        ),
        *(
            "[" * room,
            "{" * room,
            "'a'" * (room // 3),
            "a." * (room // 2),
            "a[" * (room // 2),
            "a(" * (room // 2),
        ),
        *("agent_name" + "|default(long)" * (room // 14), "agent_name|replace(" + "'a'," * (room // 4) + ")"),
        *(
            "a|" * (room // 2),
            "a if " * (room // 5),
            "a~" * (room // 2),
            "a=" * (room // 2),
            "a," * (room // 2),
        ),
    ):
        yield f"{{{{ {text} }}}}"
    blocks = [
        *(
            "{% for x in range(10 ** 12) %}{% endfor %}",
            "{% if true %}",
            "{% if true %}{% endif %}",
            "{{ long in long }}",
        ),
        *(
            "{{ long|title|length }}",
            "{{ long|upper|lower|length }}",
            "{% if long in long %}{% endif %}",
            "{{ agent_name }}",
        ),
        *(
            "{#",
            "{{",
            "{%",
            "{% raw %}",
            "{# x #}",
            "{%- if 1 -%}",
            "{% elif 1 %}",
            "{% endif %}",
            "#}",
            "%}",
            "}}",
            "\n{{",
        ),
        *(
            "{% if 1 %}{% else %}{% endif %}",
            "{{ 1 }}",
            "{{ '' }}",
            "{%-",
            "{{-",
            "-}}",
            " {%- raw -%} ",
            "\n#",
            "\n##",
        ),
    ]
    for block in blocks:
        yield block * (room // len(block))
    yield "{% if 1 %}" * 90 + "{% endif %}" * 90
    yield "{% if 1 %}" + "{% elif 1 %}" * 900 + "{% endif %}"
    yield "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}"
    yield "{% for a in long %}" * 9 + "{% endfor %}" * 9


def _memory() -> Iterator[str]:
    yield "{{ long }}" * 6_000
    yield "{{ 'x' * 10 ** 12 }}"
    yield "{{ [0] * 10 ** 10 }}"
    yield "{{ long|join('" + "y" * 60_000 + "') }}"
    yield "{{ long|replace('x', '" + "y" * 60_000 + "') }}"
    yield "{{ long|replace('', '" + "\\U0001f600" * 5_000 + "') }}"
    yield "{{ agent_name" + "|replace('a', 'aaaaaaaa')" * 40 + " }}"
    yield (
        "{{ '"
        + "\\N{ARABIC LIGATURE UIGHUR KIRGHIZ YEH WITH HAMZA ABOVE WITH ALEF MAKSURA ISOLATED FORM}" * 600
        + "' }}"
    )
    yield "{{ '" + "\ufdfa" * 20_000 + "'|upper|title|length }}"
    yield "{{ '" + "\u0390" * 30_000 + "'|upper }}"
    yield "\U0010ffff" * (INPUT_LIMIT // 4)
    yield "x" * (INPUT_LIMIT + 1)
    yield "{{ 'a'|replace('a', long)|replace('x', long) }}"
    yield "{{ long|join(long|join(long)) }}"


def _syntax() -> Iterator[str]:
    yield from (
        *(
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "{{ }}",
            "{% %}",
            "{{ {{ }} }}",
            "{% if %}",
            "{% endif %}",
            "{{ '",
            '{{ "',
        ),
        *(
            "{{ \x00 }}",
            "{{ \ud800 }}",
            "{{ \u202e agent_name }}",
            "{{ \uff21 }}",
            "{{ ag\u0435nt_name }}",
            "\ufeff{{ nope }}",
        ),
        *(
            "{{ agent_name\u2028}}",
            "{{\u00a0agent_name }}",
            "{{ \ufb01 }}",
            "{% \u0456f 1 %}",
            "{{ agent_name\x85 }}",
        ),
        *(
            "# for x in y",
            "## comment",
            "<%- x -%>",
            "{{ class }}",
            "{{ lambda }}",
            "{{ None }}",
            "{{ l_0_x }}",
            "{{ t_1 }}",
        ),
        *(
            "{{ x" + "x" * 60_000 + " }}",
            "{% " + "x" * 60_000 + " %}",
            "{{ a|" + "x" * 60_000 + " }}",
            "{{ '\n' }}",
        ),
        *(
            "{% if a == '" + "\n" * 60_000 + "' %}",
            "{% include 'parts/" + "x" * 60_000 + "' %}",
            "{{ \n" * 9_000,
        ),
        *(
            "{{ agent_name is " + "x" * 60_000 + " }}",
            "{{ 1." + "1" * 60_000 + " }}",
            "{{ x\x1b[31m }}",
            "{% x\nfaults: none %}",
        ),
        *(
            "{{ agent_name|upper(x='\r\n" + "y" * 50_000 + "') }}",
            "{{ agent_name|default(" + "z" * 50_000 + "=1) }}",
        ),
    )


def _bombs() -> Iterator[Hostile]:
    """Layers whose parts include one another."""

    def include(name: str, times: int = 1) -> str:
        return f'{{% include "parts/{name}" %}}' * times

    doubling = {f"parts/{n}": include(str(n + 1), 9) for n in range(5)}
    yield Hostile("bombs", include("0", 9), {**doubling, "parts/5": "x" * 60_000})
    yield Hostile("bombs", include("0"), {f"parts/{n}": include(str(n + 1)) for n in range(500)})
    yield Hostile("bombs", include("a"), {"parts/a": include("b"), "parts/b": include("a")})
    yield Hostile("bombs", include("a"), {"parts/a": include("a", 1_800)})
    yield Hostile("bombs", include("a", 1_800), {"parts/a": "x" * 60_000})
    many = {f"parts/{n}": "{{ long|title|length }}" for n in range(1_000)}
    yield Hostile("bombs", "".join(include(str(n)) for n in range(1_000)), many)
    yield Hostile("bombs", include("a"), {"parts/a": "{{ auth_token }}"})
    yield Hostile("bombs", include("a"), {"parts/a": "{{ ''.__class__ }}"})
    yield Hostile("bombs", include("a"), {"parts/a": "{% extends 'TOOLS.md' %}"})
    yield Hostile("bombs", "{{ part_0 }}" + include("a"), {"parts/a": "x"})
    half = len(PLACEHOLDER) // 2
    halves = {"parts/a": PLACEHOLDER[:half], "parts/b": PLACEHOLDER[half:]}
    yield Hostile("bombs", include("a") + include("b"), halves)


def _ways(hostile: Hostile) -> Iterator[tuple[str, Any]]:
    """The ways in which the product reads such a text."""
    context = {
        "agent_name": "Ada a",
        "user_notes": "",
        "long": "x" * _LONG,
        "auth_token": f"{PLACEHOLDER}{CANARY}",
    }
    parts = {name: Source(name, text) for name, text in hostile.parts.items()}
    source = Source(NAME, hostile.source)
    if not parts:
        yield "override", lambda: render_override(NAME, hostile.source, context)
        yield "plain", lambda: plain_text(NAME, hostile.source)
    yield "layer", lambda: render_layered(source, context, parts.get)
    if hostile.family not in ("CPU", "memory"):  # it takes as long again, and does nothing else
        yield "check", lambda: str(check_source(source))  # type: ignore[func-returns-value]
        yield "parts", lambda: "".join(parts_of(source))


_ON_DEMAND = (encodings.unicode_escape, jinja2.debug, unicodedata)
"""Modules that Jinja or Python import once they need them."""
_HARMLESS = (
    "compile",
    "exec",
    "object.__getattr__",
    "sys._getframe",
    "cpython.",
    "code.__new__",
    "builtins.id",
)
_reached: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and not event.startswith(_HARMLESS):
        _reached.append(f"{event} {str(arguments)[:80]}")


_watching = False


def _attempt(call: Any) -> tuple[str, str | None]:
    """The output, and the refusal."""
    try:
        return str(call()), None
    except TemplateError as error:
        return "", str(error)
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"


def _planted() -> list[tuple[str, Any]]:
    """What must be noticed: to reach a file, to show a token, to take memory, and to take time."""

    def spin() -> str:
        began = time.process_time()
        while time.process_time() < began + MOST_CPU_S:
            pass
        return ""

    return [
        ("reached", lambda: open(__file__).readline()),
        ("held", lambda: CANARY),
        ("refusal", lambda: "x" * MOST_MEMORY),
        ("seconds", spin),
    ]


def _main() -> None:
    os.environ["CANARY"] = CANARY
    sys.addaudithook(_watch)
    render_override(NAME, "{{ agent_name|title }}{% if nope %}{% endif %}", {"agent_name": "a", "nope": ""})
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY, resource.RLIM_INFINITY))
    for number, hostile in enumerate(corpus()):
        for way, call in _ways(hostile):
            _observe(f"{number} {way}", call)
    for name, call in _planted():
        _observe(f"-1 {name}", call)


def _observe(place: str, call: Any) -> None:
    global _watching
    print(place, end="\t", flush=True)  # says which it was, should it never come back
    before, began = len(_reached), time.process_time()
    limit = int(began) + _GIVEN_UP_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    _watching = True
    output, refusal = _attempt(call)
    _watching = False
    seconds = time.process_time() - began
    told = {
        "output": output[:2_000],
        "length": len(output),
        "held": PLACEHOLDER in output or CANARY in output,
        "refusal": refusal,
        "seconds": seconds,
        "reached": _reached[before:],
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _main()
