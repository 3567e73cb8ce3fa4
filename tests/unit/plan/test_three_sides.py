"""No line of either side is lost in a merge, whatever the texts are (rules.md 47)."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.plan.test_decide import digest
from worker.workspace.plan import Bases, Decision, Mode, RecordedFile, decide_carrier
from worker.workspace.rendering import RenderedFile
from worker.workspace.three_sides import Unmerged, merge_of
from worker.workspace.tokens import PLACEHOLDER, find_token, tools_span, with_token

LATER = Mode(first=False)
TOKEN, NEW_TOKEN = "a" * 43, "b" * 43
LINES = st.sampled_from(["a", "b", "c", "d", "", "", "x\u2028y", "\ufeff", "\x00", "```"])
THEIRS, OURS = ("theirs 1", "theirs 2", "theirs 3"), ("ours 1", "ours 2", "ours 3")
SECTION = f"## Tools\n\nCall home.\n\nBASE_URL=http://mc\nAUTH_TOKEN={PLACEHOLDER}"

quick = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def edited(draw: st.DrawFn, text: str, added: st.SearchStrategy[str]) -> str:
    """The text with some of its lines removed, replaced, or followed by others."""
    lines: list[str] = []
    for line in text.split("\n"):
        what = draw(st.integers(0, 9))
        lines += [] if what == 0 else [draw(added)] if what == 1 else [line]
        lines += [draw(added)] if what == 2 else []
    return "\n".join(lines)


@st.composite
def three_sides(draw: st.DrawFn) -> tuple[str, str, str]:
    base = "\n".join(draw(st.lists(LINES, max_size=9)))
    live = draw(edited(base, st.one_of(LINES, st.sampled_from(THEIRS))))
    return base, live, draw(edited(base, st.one_of(LINES, st.sampled_from(OURS))))


@quick
@given(three_sides())
def test_a_merge_holds_what_either_side_added_and_stays_the_same(sides: tuple[str, str, str]) -> None:
    base, live, desired = sides
    merged = merge_of(base, live, desired)
    if isinstance(merged, Unmerged):
        return
    there = Counter(merged.split("\n"))
    assert all(there[line] >= live.split("\n").count(line) for line in THEIRS)
    assert all(there[line] >= desired.split("\n").count(line) for line in OURS)
    again = merge_of(base, merged, desired)
    assert isinstance(again, str)
    assert again.rstrip("\n") == merged.rstrip("\n")


def test_what_was_merged_but_not_put_on_record_gets_nothing_twice() -> None:
    base = "# You\n\n- one\n\n- two\n\n- three\n\n- four\n"
    live = base.replace("- three\n", "")
    desired = base.replace("# You\n", "# You\n\n- one\n")
    merged = merge_of(base, live, desired)
    assert merged == live.replace("# You\n", "# You\n\n- one\n")
    assert merge_of(base, str(merged), desired) == merged
    assert merge_of("c\na", "c", "c\nc\na") == "c\nc"
    assert merge_of("c\na", "c\nc", "c\nc\na") == "c\nc"


@pytest.mark.parametrize(
    "sides",
    [
        [["A", f"{side}{at}"] * 995 for at, side in enumerate("uvw")],
        [[x for at in range(995) for x in (f"A{at % 50}", f"{side}{at}")] for side in "uvw"],
        [["A"] * 1990, *([x for at in range(99) for x in ("A", f"{side}{at}")] for side in "vw")],
    ],
    ids=["two lines in turn", "as many equal lines as difflib bears", "a short side of equal lines"],
)
def test_equal_lines_do_not_hold_a_worker_up(sides: list[list[str]]) -> None:
    base, live, desired = ("\n".join(lines) for lines in sides)
    started = time.thread_time()
    assert isinstance(merge_of(base, live, desired), Unmerged)
    assert time.thread_time() - started < 1.5


def test_a_long_file_of_common_lines_is_merged() -> None:
    lines = [text for at in range(480) for text in (f"## Item {at}", "", "```", "```")]
    base = "\n".join(lines)
    live = base.replace("## Item 400", "## Item four hundred")
    merged = merge_of(base, live, base.replace("## Item 20\n", "## Item twenty\n"))
    assert merged == live.replace("## Item 20\n", "## Item twenty\n")


def carrier(text: str) -> RenderedFile:
    return RenderedFile("AGENTS.md", "file", text, digest(text), True)


def record_of(text: str, *, mixed: bool = False) -> RecordedFile:
    return RecordedFile("file", digest(text), 1, 1, None, mixed, True)


AGENTS = f"# Agents\n\nRead.\n\nWork.\n\n{SECTION}"
BASES: Bases = {digest(AGENTS): AGENTS}


def decided(live: str, ours: str = AGENTS) -> Decision:
    return decide_carrier(carrier(ours), live, record_of(AGENTS), LATER, lambda: BASES, True)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "ours",
    [
        AGENTS,
        AGENTS.replace("Call home.", "Call home daily."),
        AGENTS.replace("http://mc", "https://mc"),
        AGENTS.replace("Read.", "Read all."),
    ],
    ids=["the same", "our section changed", "its end changed", "the rest changed"],
)
def test_what_is_appended_to_the_file_stays_though_our_section_ends_it(end: str, ours: str) -> None:
    notes = "\n- Remember: tests before commits.\n```\nmake test\n```\n"
    live = with_token(f"{AGENTS}\n{notes}".replace("\n", end), TOKEN)
    text = decided(live, ours).text
    assert text == f"{ours}\n{notes}".replace("\n", end)


def test_lines_removed_from_the_end_of_our_section_come_back_once() -> None:
    live = with_token(AGENTS, TOKEN).replace("BASE_URL=http://mc\n", "")
    assert decided(live).text == AGENTS
    live = with_token(f"{AGENTS}\nMine.", TOKEN).replace("## Tools\n", "## Tools\nHammer.\n")
    assert decided(live).text == f"{AGENTS}\nMine."


def test_a_token_that_stands_twice_is_rotated_in_both_places() -> None:
    twice = AGENTS.replace("Work.", f"Work with {PLACEHOLDER}.")
    live = with_token(twice, TOKEN)
    file, record = carrier(twice), record_of(twice)
    decision = decide_carrier(file, live, record, LATER, dict, True)
    assert decision == Decision("update", twice)
    decision = decide_carrier(file, f"{live}\n\n## Mine\n\nNotes.\n", record, LATER, dict, True)
    assert TOKEN not in with_token(decision.text or "", NEW_TOKEN)


def test_a_section_that_was_removed_is_back_before_the_rest_is_merged() -> None:
    longer = f"{AGENTS}\n\n# Last\n\nSleep."
    decision = decided(AGENTS.replace(SECTION, "").replace("Read.", "Read all."), longer)
    assert (decision.action, decision.text) == ("merge", longer.replace("Read.", "Read all."))


BODY = st.sampled_from(["# H", "## H", "a", "b", "", "text", "```", "d"])
ODD = st.sampled_from(
    (
        *("## Tools", "##  tools:", "# TOOLS", "```", "~~~", "# H", "## H", "- AUTH_TOKEN: q", "a", "mine"),
        *(f"AUTH_TOKEN={TOKEN}", "AUTH_TOKEN=other", "x\u2028AUTH_TOKEN=k9", "\u2028## Tools", ""),
    )
)


@st.composite
def carriers(draw: st.DrawFn) -> tuple[str, str, str]:
    """A file that carries the token: as delivered, as it would be delivered, and as an agent left it."""

    def rendering() -> str:
        lines = draw(st.lists(BODY, max_size=6))
        return "\n".join((*lines, "", SECTION, *draw(st.sampled_from([(), ("", "# Last", "x")]))))

    base = rendering()
    desired = rendering() if draw(st.booleans()) else base
    return base, desired, draw(edited(with_token(base, TOKEN), ODD))


@quick
@given(carriers(), st.booleans(), st.booleans())
def test_the_token_is_found_and_a_second_run_writes_nothing(
    texts: tuple[str, str, str], section: bool, crlf: bool
) -> None:
    base, desired, live = texts
    live = live.replace("\n", "\r\n") if crlf else live
    bases: Bases = {digest(text): text for text in (base, desired)}
    token = TOKEN if find_token(live, section=section) == TOKEN else NEW_TOKEN
    file, record = carrier(desired), record_of(base)
    decision = decide_carrier(file, live, record, LATER, lambda: bases, section)
    written = with_token(decision.text or "", token)
    assert find_token(written, section=section) == token
    if decision.action != "conflict":  # our section, written into a conflict, may settle it
        left = record_of(desired, mixed=decision.mixed)
        again = decide_carrier(file, written, left, LATER, lambda: bases, section)
        assert with_token(again.text or "", token) == written
    if base == desired or decision.action == "conflict":
        lines = live.split("\n")
        span = tools_span(lines)
        rest = lines if span is None else [*lines[: span[0]], *lines[span[1] :]]
        assert written.count("mine") >= "\n".join(rest).count("mine")
