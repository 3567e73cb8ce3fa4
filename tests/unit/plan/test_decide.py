"""What to do with each file: the table of rules.md 16, 17, 19 and 47."""

from __future__ import annotations

import hashlib

import pytest

from worker.lab.simulator.seeds import USER_MD
from worker.workspace.actions import Action
from worker.workspace.plan import (
    MEMORY_FILES,
    Bases,
    Decision,
    LiveFile,
    Mode,
    Need,
    RecordedFile,
    decide,
    decide_carrier,
    has_agent_text,
)
from worker.workspace.rendering import RenderedFile
from worker.workspace.three_sides import Unmerged

FIRST, LATER = Mode(first=True), Mode(first=False)
TEXT = "Be kind.\n"
SIZE = len(TEXT)
SOURCE = "a" * 64


def rendered(name: str = "SOUL.md", text: str = TEXT) -> RenderedFile:
    return RenderedFile(name, "file", text, SOURCE if text == TEXT else digest(text), False)


def action_for(
    file: RenderedFile,
    live: LiveFile | None,
    record: RecordedFile | None,
    mode: Mode,
    bases: Bases | None = None,
) -> Action | Need:
    decision = decide(file, live, record, mode, bases)
    return decision.action if isinstance(decision, Decision) else decision


def listed(size: int = SIZE, updated_at_ms: int | None = 5) -> LiveFile:
    return LiveFile(size, updated_at_ms)


def recorded(sha: str = SOURCE, size: int = SIZE, updated_at_ms: int | None = 5) -> RecordedFile:
    return RecordedFile("file", sha, size, updated_at_ms)


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def read(content: str) -> LiveFile:
    return LiveFile(len(content.encode()), 5, content)


@pytest.mark.parametrize(
    ("live", "record", "action"),
    [
        pytest.param(None, None, "create", id="not there"),
        pytest.param(None, recorded(), "create", id="gone since we wrote it"),
        pytest.param(listed(), recorded(), "unchanged", id="as on record: not even read"),
        pytest.param(listed(), None, Need.CONTENT, id="same size, no record: must be read"),
        pytest.param(listed(), recorded(updated_at_ms=4), Need.CONTENT, id="touched since"),
        pytest.param(
            listed(updated_at_ms=None), recorded(updated_at_ms=None), Need.CONTENT, id="no times: no proof"
        ),
        pytest.param(listed(), recorded(sha="b" * 64), "update", id="the template changed, nobody else"),
        pytest.param(listed(size=SIZE + 1), recorded(size=SIZE + 1), "unchanged", id="ours, token and all"),
        pytest.param(read(TEXT), None, "unchanged", id="read and equal"),
        pytest.param(read("Be rude.\n"), None, "update", id="read and different"),
        pytest.param(listed(size=0), None, "update", id="empty"),
    ],
)
@pytest.mark.parametrize("mode", [FIRST, LATER], ids=["first", "later"])
def test_a_file_that_is_ours_alone(
    live: LiveFile | None, record: RecordedFile | None, action: Action | Need, mode: Mode
) -> None:
    assert action_for(rendered(), live, record, mode) == action


OVERWRITE = Mode(first=False, overwrite=True)


@pytest.mark.parametrize("name", sorted(MEMORY_FILES))
@pytest.mark.parametrize("mode", [FIRST, LATER], ids=["first", "later"])
@pytest.mark.parametrize(
    ("live", "record", "action"),
    [
        pytest.param(read("mine"), None, "preserved", id="the agent's own is kept"),
        pytest.param(listed(size=SIZE + 1), None, "preserved", id="unread too"),
        pytest.param(
            listed(updated_at_ms=9), recorded(), Need.CONTENT, id="our size, touched since: must be read"
        ),
        pytest.param(read("mine"), recorded(size=4, updated_at_ms=4), "preserved", id="written since"),
        pytest.param(listed(), recorded(sha="b" * 64), "update", id="ours, another text by now"),
        pytest.param(listed(size=7), recorded(sha="b" * 64, size=7), "update", id="ours, other size"),
        pytest.param(
            LiveFile(4, 9, "old\n"), recorded(sha=digest("old\n"), size=4), "update", id="ours, restored"
        ),
        pytest.param(listed(), recorded(), "unchanged", id="as we left it"),
        pytest.param(read(TEXT), None, "unchanged", id="equal"),
        pytest.param(listed(size=0), None, "update", id="an empty one is filled"),
        pytest.param(None, None, "create", id="a missing one is made"),
    ],
)
def test_a_file_that_the_agent_writes_into(
    name: str, live: LiveFile | None, record: RecordedFile | None, mode: Mode, action: Action | Need
) -> None:
    assert action_for(rendered(name), live, record, mode) == action


def test_overwrite_writes_over_what_the_agent_wrote() -> None:
    assert action_for(rendered("MEMORY.md"), read("mine"), None, OVERWRITE) == "update"
    assert has_agent_text(rendered("MEMORY.md"), read("mine"), None) is True


def test_overwrite_leaves_the_files_that_are_to_be_kept() -> None:
    mode = Mode(first=False, overwrite=True, keep_files=frozenset({"MEMORY.md", "SOUL.md"}))
    theirs = read("Ada drinks tea.\n")
    assert action_for(rendered("MEMORY.md"), theirs, recorded(), mode) == "preserved"
    assert action_for(rendered("SOUL.md"), theirs, recorded(digest("Be.\n")), mode) == "preserved"
    assert action_for(rendered("USER.md"), theirs, recorded(), mode) == "update"


@pytest.mark.parametrize("release", sorted(USER_MD))
@pytest.mark.parametrize("mode", [FIRST, LATER], ids=["first", "later"])
def test_a_seeded_text_may_be_replaced(release: str, mode: Mode) -> None:
    seed = USER_MD[release]
    assert action_for(rendered("USER.md"), listed(size=len(seed.encode())), None, mode) == Need.CONTENT
    assert action_for(rendered("USER.md"), read(seed), None, mode) == "update"
    assert action_for(rendered("USER.md"), read(f"{seed}- Call me Ada.\n"), None, mode) == "preserved"
    assert action_for(rendered("MEMORY.md"), read(seed), None, mode) == "preserved"


def test_the_user_file_of_a_main_agent_is_ours() -> None:
    main = Mode(first=False, main=True)
    assert action_for(rendered("USER.md"), read("mine"), None, main) == "update"
    assert action_for(rendered("MEMORY.md"), read("mine"), None, main) == "preserved"


@pytest.mark.parametrize(
    ("live", "mode", "action"),
    [
        pytest.param(None, FIRST, "create", id="first"),
        pytest.param(None, LATER, "preserved", id="deleted by the agent: stays deleted"),
        pytest.param(None, Mode(first=False, overwrite=True), "preserved", id="overwrite does not revive it"),
        pytest.param(None, Mode(first=False, force_bootstrap=True), "create", id="forced"),
        pytest.param(read("old"), LATER, "update", id="still there: kept current"),
        pytest.param(read(TEXT), LATER, "unchanged", id="still there and equal"),
        pytest.param(read("old"), Mode(first=False, force_bootstrap=True), "update", id="forced and there"),
    ],
)
def test_bootstrap(live: LiveFile | None, mode: Mode, action: Action) -> None:
    assert action_for(rendered("BOOTSTRAP.md"), live, None, mode) == action


def test_sizes_are_of_bytes_and_not_of_characters() -> None:
    text = "Gr\u00fc\u00dfe"
    assert action_for(rendered(text=text), listed(size=len(text.encode())), None, LATER) == Need.CONTENT
    assert action_for(rendered(text=text), listed(size=len(text)), None, LATER) == "update"


BASE = "# Soul\n\nBe brief.\n\nBe kind.\n\n## Manner\n\nPlain."
OURS = BASE.replace("Plain.", "Plain, with reasons.")
THEIRS = BASE.replace("Be brief.", "Be brief, except with Ada.")
BOTH = OURS.replace("Be brief.", "Be brief, except with Ada.")
CLASH = BASE.replace("Plain.", "Ornate.")
WROTE = recorded(sha=digest(BASE), size=len(BASE))


@pytest.mark.parametrize(
    ("live", "record", "mode", "decision"),
    [
        pytest.param(
            LiveFile(len(BASE), 5), WROTE, LATER, Decision("update", OURS), id="the templates alone changed"
        ),
        pytest.param(
            LiveFile(len(BASE), 9, BASE), WROTE, LATER, Decision("update", OURS), id="touched, the same text"
        ),
        pytest.param(LiveFile(len(THEIRS), 9), WROTE, LATER, Need.CONTENT, id="both changed: must be read"),
        pytest.param(
            LiveFile(len(THEIRS), 9, THEIRS), WROTE, LATER, Decision("merge", BOTH, mixed=True), id="merged"
        ),
        pytest.param(
            LiveFile(len(BOTH), 9, BOTH),
            WROTE,
            LATER,
            Decision("preserved", mixed=True, records=True),
            id="merged already, by a try that was not answered",
        ),
        pytest.param(
            LiveFile(len(CLASH), 9, CLASH),
            WROTE,
            LATER,
            Decision("conflict", why=Unmerged.SAME_LINES),
            id="the same lines",
        ),
        pytest.param(
            LiveFile(len(CLASH), 9, CLASH),
            WROTE,
            Mode(first=False, keep_files=frozenset({"SOUL.md"})),
            Decision("preserved", mixed=True, records=True),
            id="a conflict that was settled: theirs",
        ),
        pytest.param(
            LiveFile(len(CLASH), 9, CLASH),
            WROTE,
            Mode(first=False, overwrite_files=frozenset({"SOUL.md"})),
            Decision("update", OURS),
            id="a conflict that was settled: ours",
        ),
        pytest.param(
            LiveFile(len(CLASH), 9, CLASH), WROTE, OVERWRITE, Decision("update", OURS), id="overwrite: ours"
        ),
        pytest.param(
            LiveFile(len(CLASH), 9, CLASH),
            WROTE,
            Mode(first=False, owners={"SOUL.md": "ours"}),
            Decision("update", OURS),
            id="always ours, an operator says",
        ),
        pytest.param(
            LiveFile(len(THEIRS), 9, THEIRS),
            WROTE,
            Mode(first=False, owners={"SOUL.md": "agent"}),
            Decision("preserved"),
            id="always the agent's, an operator says",
        ),
        pytest.param(
            LiveFile(len(THEIRS), 5),
            recorded(sha=digest(BASE), size=len(THEIRS)),
            LATER,
            Decision("update", OURS),
            id="of another size, but as we left it",
        ),
        pytest.param(
            LiveFile(len(THEIRS), 5),
            RecordedFile("file", digest(BASE), len(THEIRS), 5, mixed=True),
            LATER,
            Need.CONTENT,
            id="as we left it, but not all of it is ours",
        ),
        pytest.param(
            LiveFile(0, 9, ""), WROTE, LATER, Decision("conflict", why=Unmerged.SAME_LINES), id="emptied"
        ),
        pytest.param(
            LiveFile(70_000, 9, THEIRS + "x" * 69_000),
            WROTE,
            LATER,
            Decision("conflict", why=Unmerged.TOO_LONG),
            id="too long to merge",
        ),
    ],
)
def test_a_file_that_has_three_sides(
    live: LiveFile, record: RecordedFile, mode: Mode, decision: Decision | Need
) -> None:
    file = rendered(text=OURS)
    found = decide(file, live, record, mode)
    if found is Need.BASE:
        found = decide(file, live, record, mode, {digest(BASE): BASE})
    assert found == decision


@pytest.mark.parametrize("torn", ["", OURS[:30]], ids=["emptied", "half"])
def test_a_file_that_a_dying_gateway_left_half_written_is_no_text_of_the_agents(torn: str) -> None:
    live, sent = LiveFile(len(torn), 9, torn), Mode(first=False, unanswered=frozenset({"SOUL.md"}))
    assert decide(rendered(text=OURS), live, WROTE, sent) == Decision("update", OURS)
    kept = decide(rendered(text=OURS), live, WROTE, LATER, {digest(BASE): BASE})
    assert isinstance(kept, Decision)
    assert kept.action == "conflict"


def test_without_the_text_delivered_last_only_its_hash_can_be_the_base() -> None:
    file = rendered(text=OURS)
    assert decide(file, LiveFile(len(BASE), 9, BASE), WROTE, LATER, {}) == Decision("update", OURS)
    unknown = decide(file, LiveFile(len(THEIRS), 9, THEIRS), WROTE, LATER, {})
    assert unknown == Decision("conflict", why=Unmerged.UNKNOWN_BASE)


def test_what_the_agent_alone_changed_is_kept_and_read_once() -> None:
    file, edited = rendered(text=BASE), LiveFile(len(THEIRS), 9, THEIRS)
    kept = decide(file, edited, WROTE, LATER)
    assert kept == Decision("preserved", mixed=True, records=True)
    again = RecordedFile("file", digest(BASE), len(THEIRS), 9, mixed=True, has_text=True)
    assert decide(file, LiveFile(len(THEIRS), 9), again, LATER) == Decision("preserved", mixed=True)
    known = RecordedFile("file", digest(BASE), len(BASE), 5, has_text=True)
    assert decide(file, LiveFile(len(THEIRS), 9), known, LATER) == Decision("preserved", mixed=True)


TOOLS = "## Tools\n\nCall home.\n\nAUTH_TOKEN=@@AUTH-TOKEN-IS-PUT-IN-HERE@@"
CARRIER = f"# Agents\n\nRead SOUL.md.\n\nWork.\n\n{TOOLS}"


@pytest.mark.parametrize(
    ("live", "ours", "action", "expected"),
    [
        pytest.param(CARRIER, CARRIER, "update", CARRIER, id="nobody changed anything"),
        pytest.param(
            CARRIER.replace("Work.", "Work hard."),
            CARRIER,
            "update",
            CARRIER.replace("Work.", "Work hard."),
            id="the agent changed the rest",
        ),
        pytest.param(
            CARRIER.replace("Work.", "Work hard.").replace("Call home.", "Do not call."),
            CARRIER.replace("Read SOUL.md.", "Read SOUL.md first."),
            "merge",
            CARRIER.replace("Work.", "Work hard.").replace("Read SOUL.md.", "Read SOUL.md first."),
            id="the section is ours, the rest is merged",
        ),
        pytest.param(
            CARRIER.replace("Work.", "Work hard.").replace("Call home.", "Do not call."),
            CARRIER.replace("Work.", "Work well."),
            "conflict",
            CARRIER.replace("Work.", "Work hard."),
            id="a conflict in the rest: the section is written even so",
        ),
        pytest.param(
            f"{CARRIER}\n\n## Mine\n\nNotes.\n",
            CARRIER.replace("Call home.", "Call home daily."),
            "update",
            f"{CARRIER.replace('Call home.', 'Call home daily.')}\n\n## Mine\n\nNotes.\n",
            id="notes below the section stay below it",
        ),
        pytest.param(
            CARRIER.replace(TOOLS, "Nothing here."),
            CARRIER,
            "update",
            f"{CARRIER.replace(TOOLS, 'Nothing here.')}\n\n{TOOLS}",
            id="a section that was removed comes back",
        ),
        pytest.param(
            f"## Tools\n\nA hammer.\n\n{CARRIER}",
            CARRIER,
            "update",
            f"## Tools\n\nA hammer.\n\n{CARRIER}",
            id="the last section is ours",
        ),
    ],
)
def test_of_the_file_with_the_token_the_tools_are_ours(
    live: str, ours: str, action: Action, expected: str
) -> None:
    file = RenderedFile("AGENTS.md", "file", ours, digest(ours), True)
    plain = live.replace("@@AUTH-TOKEN-IS-PUT-IN-HERE@@", "t0ken")
    record = recorded(sha=digest(CARRIER))
    decision = decide_carrier(file, plain, record, LATER, lambda: {digest(CARRIER): CARRIER}, True)
    assert (decision.action, decision.text) == (action, expected)
    assert decision.mixed == (expected != ours)


def test_a_file_with_the_token_that_is_not_on_record_is_written_whole() -> None:
    file = RenderedFile("AGENTS.md", "file", CARRIER, digest(CARRIER), True)
    decision = decide_carrier(file, "# Somebody's\n", None, LATER, dict, True)
    assert decision == Decision("update", CARRIER)
