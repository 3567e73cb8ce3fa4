"""What to do with each file: the table of rules.md 16, 17, 19."""

from __future__ import annotations

import hashlib

import pytest

from worker.lab.simulator.seeds import USER_MD
from worker.workspace.plan import MEMORY_FILES, Action, LiveFile, Mode, RecordedFile, decide, has_agent_text
from worker.workspace.rendering import RenderedFile

FIRST, LATER = Mode(first=True), Mode(first=False)
TEXT = "Be kind.\n"
SIZE = len(TEXT)
SOURCE = "a" * 64


def rendered(name: str = "SOUL.md", *, carries_token: bool = False) -> RenderedFile:
    return RenderedFile(name, "file", TEXT, SOURCE, carries_token)


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
        pytest.param(listed(), None, None, id="same size, no record: must be read"),
        pytest.param(listed(), recorded(updated_at_ms=4), None, id="touched since"),
        pytest.param(listed(updated_at_ms=None), recorded(updated_at_ms=None), None, id="no times: no proof"),
        pytest.param(listed(), recorded(sha="b" * 64), None, id="the template changed, same size"),
        pytest.param(listed(size=SIZE + 1), recorded(), "update", id="another size"),
        pytest.param(listed(size=SIZE + 1), recorded(size=SIZE + 1), "unchanged", id="ours, token and all"),
        pytest.param(read(TEXT), None, "unchanged", id="read and equal"),
        pytest.param(read("Be rude.\n"), None, "update", id="read and different"),
        pytest.param(read("Be rude.\n"), recorded(), "update", id="read and different, whatever the record"),
        pytest.param(listed(size=0), None, "update", id="empty"),
    ],
)
@pytest.mark.parametrize("mode", [FIRST, LATER], ids=["first", "later"])
def test_a_file_that_is_ours_alone(
    live: LiveFile | None, record: RecordedFile | None, action: Action | None, mode: Mode
) -> None:
    assert decide(rendered(), TEXT, live, record, mode) == action


OVERWRITE = Mode(first=False, overwrite=True)


@pytest.mark.parametrize("name", sorted(MEMORY_FILES))
@pytest.mark.parametrize("mode", [FIRST, LATER], ids=["first", "later"])
@pytest.mark.parametrize(
    ("live", "record", "action"),
    [
        pytest.param(read("mine"), None, "preserved", id="the agent's own is kept"),
        pytest.param(listed(size=SIZE + 1), None, "preserved", id="unread too"),
        pytest.param(listed(updated_at_ms=9), recorded(), None, id="our size, touched since: must be read"),
        pytest.param(read("mine"), recorded(size=4, updated_at_ms=4), "preserved", id="written since"),
        pytest.param(listed(), recorded(sha="b" * 64), None, id="ours, another text by now"),
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
    name: str, live: LiveFile | None, record: RecordedFile | None, mode: Mode, action: Action | None
) -> None:
    assert decide(rendered(name), TEXT, live, record, mode) == action


def test_overwrite_writes_over_what_the_agent_wrote() -> None:
    assert decide(rendered("MEMORY.md"), TEXT, read("mine"), None, OVERWRITE) == "update"
    assert has_agent_text(rendered("MEMORY.md"), read("mine"), None) is True


@pytest.mark.parametrize("release", sorted(USER_MD))
@pytest.mark.parametrize("mode", [FIRST, LATER], ids=["first", "later"])
def test_a_seeded_text_may_be_replaced(release: str, mode: Mode) -> None:
    seed = USER_MD[release]
    assert decide(rendered("USER.md"), TEXT, listed(size=len(seed.encode())), None, mode) is None
    assert decide(rendered("USER.md"), TEXT, read(seed), None, mode) == "update"
    assert decide(rendered("USER.md"), TEXT, read(f"{seed}- Call me Ada.\n"), None, mode) == "preserved"
    assert decide(rendered("MEMORY.md"), TEXT, read(seed), None, mode) == "preserved"


def test_the_user_file_of_a_main_agent_is_ours() -> None:
    main = Mode(first=False, main=True)
    assert decide(rendered("USER.md"), TEXT, read("mine"), None, main) == "update"
    assert decide(rendered("MEMORY.md"), TEXT, read("mine"), None, main) == "preserved"


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
    assert decide(rendered("BOOTSTRAP.md"), TEXT, live, None, mode) == action


def test_the_file_with_the_token_is_never_taken_as_it_is_on_record() -> None:
    file = rendered("TOOLS.md", carries_token=True)
    assert decide(file, TEXT, listed(), recorded(), LATER) is None
    assert decide(file, TEXT, read(TEXT), recorded(), LATER) == "unchanged"


def test_sizes_are_of_bytes_and_not_of_characters() -> None:
    text = "Grüße"
    assert decide(rendered(), text, listed(size=len(text.encode())), None, LATER) is None
    assert decide(rendered(), text, listed(size=len(text)), None, LATER) == "update"
