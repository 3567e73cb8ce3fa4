"""Reading other people's text takes time in proportion to its length, and holds the GIL no longer.

Each reader gets long repetitions of every character that means something to one of them. Four times the text
may take at most six times the CPU, up to 64 KB; with FULL=1 in the environment, up to 1 MB.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from worker.cli.console import plain
from worker.errors import PermanentError
from worker.escaped import escaped as escaped_text
from worker.gateway.config_text import text_fault, without_nulls
from worker.gateway.entry_settings import FieldRecord, apply_settings
from worker.gateway.error_mapping import from_close, from_response
from worker.gateway.error_payload import CallContext
from worker.gateway.errors import GatewayError
from worker.gateway.heartbeats import heartbeat_fault
from worker.gateway.protocol import decode
from worker.gateway.variables import escaped, strings_of, variables_in
from worker.jobs.requests import seconds_of
from worker.jobs.schedule_spec import require_cron, require_timezone
from worker.logs import _bounded
from worker.masking import forget_all, mask, remember
from worker.printable import line, paragraph, readable_json, storable, utf8
from worker.records.agent_settings import Setting, counting
from worker.urls import split_url
from worker.workspace.bundle import is_plain_path, read_tar
from worker.workspace.context import profile_fields
from worker.workspace.diffs import file_diff, known_secrets
from worker.workspace.display_text import clean, one_line, shown_name
from worker.workspace.identity import derived_id, openclaw_id, slug, workspace_path
from worker.workspace.layers import name_fault
from worker.workspace.overrides import Source, parts_of, render_override
from worker.workspace.owners_carrier import foreign_tokens, with_section
from worker.workspace.templates import _one_line, _quoted
from worker.workspace.three_sides import as_rendered, merge_of, tools_of, with_tools, without_tools
from worker.workspace.tokens import PLACEHOLDER, find_token, token_values, tools_span, verify_token

T = "q2v5hJMJ3C51gN8WCOWE__PX0pSVJNE-q9fOGHWKphA"
CONTEXT = CallContext("ws://h:1", "agents.files.set", "mc-1", "SOUL.md")
SECTION = "\n".join(("## Tools", *("a" * 20), f"AUTH_TOKEN={T}", "x", "y"))
FULL = bool(os.environ.get("FULL"))
LARGE = (1024 if FULL else 64) * 1024
SMALL = LARGE // 4
MOST_TIMES = 6.0
SLACK_S = 0.03
NOTHING_S = 0.025
"""A reading of SMALL that takes no longer does not take long for LARGE, even where its time grows as its
square."""
MOST_S = 2.0
"""For LARGE: far below the seconds that a lease lasts."""


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except (PermanentError, GatewayError):
        return


def _ended(call: Callable[[], object]) -> None:
    with suppress(ValueError):
        call()


def rejected(message: str) -> GatewayError:
    issues = [{"path": message, "message": message}]
    return from_response(CONTEXT, {"code": message, "message": message, "details": {"issues": issues}})


READERS: dict[str, Callable[[str], object]] = {
    "find_token": lambda text: find_token(text, section=False),
    "find_token in a section": lambda text: find_token(f"## Tools\n{text}", section=True),
    "find_token behind a key": lambda text: find_token(f"AUTH_TOKEN{text}={text}", section=False),
    "find_token before a key": lambda text: find_token(f"{text}AUTH_TOKEN={T}", section=False),
    "find_token behind a heading": lambda text: find_token(f"## tools{text}x\n", section=True),
    "verify_token": lambda text: verify_token(text, f"pbkdf2_sha256$1${text}${text}"),
    "mask": lambda text: mask(text, [T]),
    "mask behind a name": lambda text: mask(f"AUTH_TOKEN{text}{T}"),
    "known_secrets": lambda text: known_secrets([text], [T]),
    "file_diff": lambda text: file_diff(text, f"x{text[:-9]}y", [T]),
    "token_values": token_values,
    "tools_span": lambda text: tools_span(text.splitlines()),
    "a file's section of ours": lambda text: (tools_of(text), with_tools(text, SECTION)),
    "a section among headings": lambda text: tools_of(f"## Tools\n{text}\n## Tools\n{text}"),
    "clean": clean,
    "shown_name": lambda text: shown_name(text, "mc-1"),
    "one_line": one_line,
    "profile_fields": lambda text: profile_fields({"role": text, "purpose": [text]}),
    "a template's value": _one_line,
    "a template's quotation": _quoted,
    "slug": lambda text: refused(lambda: slug(text)),
    "openclaw_id": lambda text: refused(lambda: openclaw_id(f"agent:{text}")),
    "heartbeat_fault": lambda text: heartbeat_fault({"every": text}),
    "a gateway's refusal": rejected,
    "a gateway's invalid config": lambda text: rejected(f"invalid config: {text}"),
    "a gateway's rate limit": lambda text: rejected(f"rate limit exceeded; retry after {text}"),
    "a gateway's missing scope": lambda text: rejected(f"missing scope: {text}"),
    "variables in a config": lambda text: (variables_in(text), escaped(f"{text}${{A}}")),
    "paths of a config": lambda text: [*strings_of({text: [text[:1]] * (len(text) // 64)})],
    "a close frame": lambda text: from_close(CONTEXT, 1008, text),
    "a frame": decode,
    "a frame of an event": lambda text: decode(json.dumps({"type": "event", "event": text})),
    "an error": PermanentError,
    "a line of the log": _bounded,
    "a line on the terminal": plain,
    "a file without our section": lambda text: without_tools(f"## Tools\nAUTH_TOKEN={T}\n{text}", SECTION),
    "a file with our section": lambda text: with_section(
        f"## Tools\nAUTH_TOKEN={T}\n{text}", SECTION, "0" * 64
    ),
    "a file as it was rendered": lambda text: as_rendered(text, T),
    "foreign tokens": foreign_tokens,
    "three sides": lambda text: merge_of(f"a\n{text}", f"{text}\nb", f"c\na\n{text}"),
    "a sentence": lambda text: (line(text), paragraph(text), utf8(text), storable({"a": [text]})),
    "JSON that was written by hand": readable_json,
    "escaped": escaped_text,
    "a line of a bundle": is_plain_path,
    "a bundle": lambda text: refused(lambda: read_tar(text.encode("utf-8", "surrogatepass"))),
    "a workspace's path": lambda text: refused(lambda: workspace_path(text, "mc-1")),
    "an id that was derived": lambda text: derived_id(f"mc-{text}"),
    "an entry's settings": lambda text: (text_fault(text, {"every": text}), without_nulls({text: [text]})),
    "a cron expression": lambda text: refused(lambda: require_cron(text)),
    "a timezone": lambda text: refused(lambda: require_timezone(text)),
    "a duration": lambda text: refused(lambda: _ended(lambda: seconds_of(text))),
    "a URL": lambda text: _ended(lambda: split_url(f"ws://{text}")),
    "a template's name": name_fault,
    "a layer's parts": lambda text: parts_of(Source("x", text[: 64 * 1024])),
    "an override": lambda text: refused(lambda: render_override("x", text[: 64 * 1024], {})),
    "an override's expression": lambda text: refused(
        lambda: render_override("x", f"{{{{ {text[: 60 * 1024]} }}}}", {})
    ),
}
LETTERS = [*"\n\t `'\"*=:|-_.~%\\/@&#<>()[]{}$+,;!?aA0\x00\u00a0\u200b\u2028\ud800"]
SECRETS = [
    *("AUTH_TOKEN", "AUTH_TOKEN=", "token:", "token ", "password ", "key is ", "Bearer ", "--token "),
    *(
        "://",
        "http://a:b@",
        "http://",
        "%41",
        "\\u0041",
        "&#65;",
        "\\n",
        "a\n",
        "\n+",
        "token: |\n  ",
        "token\"'",
    ),
    *("-----BEGIN PRIVATE KEY-----", "eyJ", "eyJ-", "sk-", "a1", "aB3-", "pbkdf2_sha256$1$a", "<token>"),
    *("name: token\n  value: x\n", "| token |", "token\"'", "token:token:a ", "a1b2c3d4e5f6g7h8 token "),
]
MARKS = [
    *("export ", "## ", "## Tools\n", "```\n", "> ", "- [x] ", "; a: b", "a: ", "(+1 more issues) "),
    *(PLACEHOLDER, PLACEHOLDER[:9], PLACEHOLDER[9:], "{{", "{% if a %}", "{#", "1_", "not ", "a."),
]
UNITS = [*LETTERS, *SECRETS, *MARKS]
BY_MASK = {"known_secrets", "file_diff", "an error", "a line of the log", "a line on the terminal"}
BY_MASK |= {"a gateway's refusal", "openclaw_id", "mask behind a name", "an override's expression"}
BY_MASK |= {
    "a gateway's invalid config",
    "a gateway's rate limit",
    "a gateway's missing scope",
    "a close frame",
}
BY_MASK |= {"a timezone", "a cron expression", "a layer's parts", "an override"}
"""Readers that do little but hand the text to the mask, or to Jinja, which 64 KB bound: they get few units,
but with FULL=1."""
FEW = ["- [x] ", "\n", " ", "a", "token ", "key is ", "token:token:a ", "a\n", "\x00"]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Forget what other tests remembered, since it costs time too."""
    forget_all()
    yield
    forget_all()


def cpu_s(reader: Callable[[str], object], text: str) -> float:
    start = time.thread_time()
    reader(text)
    return time.thread_time() - start


def repeated(unit: str, size: int) -> str:
    return unit * (size // len(unit))


def too_slow(small: float, large: float) -> bool:
    return large > MOST_TIMES * small + SLACK_S or large > MOST_S


@pytest.mark.parametrize("name", READERS)
def test_four_times_the_text_takes_at_most_six_times_the_time(name: str) -> None:
    reader, slow = READERS[name], []
    for unit in FEW if name in BY_MASK and not FULL else UNITS:
        small = cpu_s(reader, repeated(unit, SMALL))
        if small < NOTHING_S:
            continue
        small = min(small, cpu_s(reader, repeated(unit, SMALL)))
        large = cpu_s(reader, repeated(unit, LARGE))
        if too_slow(small, large):
            # Something else may have run in between: the best of several counts.
            small = min(small, cpu_s(reader, repeated(unit, SMALL)))
            large = min(large, *(cpu_s(reader, repeated(unit, LARGE)) for _ in range(2)))
            if too_slow(small, large):
                slow.append((unit, round(small, 3), round(large, 3)))
    assert slow == []


@pytest.mark.parametrize("unit", [T[:16], f"{T[:-1]}-", "a\n", "%41"])
def test_as_many_secrets_as_there_may_be_in_hand_are_looked_for_quickly(unit: str) -> None:
    for _ in range(128):
        remember(secrets.token_urlsafe(32))
    assert min(cpu_s(mask, repeated(unit, LARGE)) for _ in range(2)) < MOST_S


def test_thousands_of_settings_are_read_in_linear_time() -> None:
    def reading(count: int) -> float:
        fields = [f"params.k{number}" for number in range(count)]
        rows = [Setting("gateway", name, 1) for name in fields]
        made = {name: FieldRecord(({},), None) for name in fields}
        start = time.thread_time()
        assert len(counting([*rows, Setting("agent", "params", 1)])) == 1
        assert len(counting(rows)) == count
        apply_settings({}, {f"{name}.x": 1 for name in fields}, made, present=True)
        return time.thread_time() - start

    assert min(reading(4000) for _ in range(2)) < 1


def test_nested_placeholders_are_taken_out_in_one_pass() -> None:
    half = len(PLACEHOLDER) // 2
    nested = PLACEHOLDER[:half] * 20_000 + PLACEHOLDER[half:] * 20_000
    start = time.thread_time()
    assert clean(f"a{nested}b") == "ab"
    assert time.thread_time() - start < 2


def test_a_megabyte_is_masked_and_a_longer_file_is_not_compared() -> None:
    start = time.thread_time()
    mask("token " * 170_000, [T])
    assert time.thread_time() - start < 4
    says = file_diff("x" * 600_000, "y", [T])
    assert says == "(left out: the file has 600,000 characters, and at most 524,288 are compared)"


def test_of_a_file_of_any_size_a_megabyte_is_searched_for_a_token() -> None:
    filling = repeated("a\n", 3 * 2**19)
    assert find_token(f"## Tools\nAUTH_TOKEN={T}\n{filling}", section=True) == T
    assert find_token(f"{filling}AUTH_TOKEN={T}", section=False) == T
    assert find_token(f"{filling}AUTH_TOKEN={T}\n{filling}", section=False) is None
    cut = 512 * 1024 - 20
    assert find_token(f"{' ' * cut}\nAUTH_TOKEN={T}\n{filling}", section=False) is None, "half a line"


def test_files_of_many_lines_are_not_matched_line_by_line() -> None:
    before = "\n".join(f"{n % 97} line" for n in range(20_000))
    after = "\n".join(f"{n % 89} line" for n in range(20_000))
    start = time.thread_time()
    diff = file_diff(before, after, [T])
    assert time.thread_time() - start < 2
    assert "too many lines differ to match them" in diff


def test_a_diff_shows_the_lines_around_a_change_with_their_numbers() -> None:
    before = "\n".join(f"line {n}" for n in range(5_000))
    diff = file_diff(before, before.replace("line 2500\n", "line x\n"), [T])
    assert "@@ -2498,7 +2498,7 @@" in diff
    assert "-line 2500\n+line x" in diff
    assert file_diff("a\nb", "a\nb", []) == ""
