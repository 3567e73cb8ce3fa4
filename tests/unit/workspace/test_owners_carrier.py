"""Our section is put into an owner's file, and every other byte of it stays (rules.md 48)."""

from __future__ import annotations

import hashlib

import pytest

from worker.workspace.owners_carrier import foreign_tokens, section_of, with_section
from worker.workspace.rendering import RenderedFile
from worker.workspace.tokens import PLACEHOLDER, find_token, token_values

OURS = f"## Tools\n\nCall us.\n\n### Credentials\n\n```bash\nAUTH_TOKEN={PLACEHOLDER}\n```"
TOKEN = "a-token-of-ours"
DELIVERED = hashlib.sha256(OURS.encode()).hexdigest()


def filled(text: str) -> str:
    return text.replace(PLACEHOLDER, TOKEN)


@pytest.mark.parametrize(
    "live",
    [
        "",
        "Notes",
        "Notes\n",
        "Notes\r\nand more\r\n",
        "# Title\n\n## Tools\n\nThe red printer.\n\n### Coffee\n\nBlack.",
        "## Tools\n\nprinter\n\n# Another title\n\ntext",
        "```\n## Tools\n```\n",
        "\ufeff## Tools\u00a0\n\nx",
        "Mojibake \ud800 and \x00 too",
    ],
)
def test_a_file_without_a_section_of_ours_gets_it_below_everything(live: str) -> None:
    text = with_section(live, OURS, None)
    assert text.startswith(live)
    assert filled(text).count(TOKEN) == 1
    assert find_token(filled(text), section=True) == TOKEN
    assert foreign_tokens(text) == 0
    assert text.endswith(f"{OURS}\n")


@pytest.mark.parametrize("around", [("", ""), ("Before\n\n", "\n\n## After\n\nText\n"), ("# A\n", "\n# B")])
@pytest.mark.parametrize(
    "theirs", ["AUTH_TOKEN=old", "Old words.\n\n- export AUTH_TOKEN='old'\n\n### More\n\nold"]
)
def test_a_section_that_assigns_a_token_is_replaced_and_no_byte_around_it(
    around: tuple[str, str], theirs: str
) -> None:
    before, after = around
    assert with_section(f"{before}## Tools\n\n{theirs}{after}", OURS, None) == f"{before}{OURS}{after}"


def test_it_is_put_in_again_without_a_change() -> None:
    for live in (
        "",
        "Notes",
        "Notes\n",
        "a\r\nb\r\n",
        "## Tools\n\nprinter",
        "## Tools\n\nAUTH_TOKEN=x\n\n# End",
    ):
        once = with_section(live, OURS, None)
        assert with_section(filled(once), OURS, DELIVERED) == once


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_somebody_wrote_below_ours_stays_when_ours_changes(newline: str) -> None:
    below = "A line of the owner's.\n\n### And a heading\n".replace("\n", newline)
    live = filled(f"Top\n\n{OURS}\n").replace("\n", newline) + below
    changed = OURS.replace("Call us.", "Call us\nanew.")
    text = with_section(live, changed, DELIVERED)
    assert text == f"Top{newline}{newline}{changed}\n{below}"
    edited = live.replace("Call us.", "Call nobody.")  # inside it is ours
    assert "owner's" not in with_section(edited, changed, DELIVERED)


def test_tokens_of_others_are_counted_wherever_they_are() -> None:
    assert foreign_tokens(OURS) == 0
    assert foreign_tokens(f"AUTH_TOKEN=theirs\n\n{OURS}") == 1
    assert foreign_tokens(f"# AUTH_TOKEN=commented\n> AUTH_TOKEN=quoted\n{OURS}") == 0
    assert token_values("AUTH_TOKEN=\nexport AUTH_TOKEN=a\n* AUTH_TOKEN=`b`") == ["a", "b"]


def test_the_section_of_a_rendering_is_the_one_that_carries_the_token() -> None:
    whole = RenderedFile(
        "AGENTS.md", "file", f"# You\n\n## Tools of yours\n\n{OURS}", "0", carries_token=True
    )
    section = section_of(whole)
    assert section is not None
    assert (section.kind, section.text, section.source_sha256) == ("section", OURS, DELIVERED)
    bare = RenderedFile("TOOLS.md", "file", f"AUTH_TOKEN={PLACEHOLDER}", "0", carries_token=True)
    assert section_of(bare) is None


@pytest.mark.parametrize(
    "live",
    [
        "# Notes\n\n```\n## Tools\nAUTH_TOKEN=an-example\n```\n\nMy words.\n\n## More\n\nwords\n",
        "# Notes\n\n~~~~ markdown\n```\n## Tools\nAUTH_TOKEN=an-example\n```\n~~~~\nMy words.\n",
    ],
)
def test_an_example_in_a_code_fence_is_no_section_of_ours(live: str) -> None:
    text = with_section(live, OURS, None)
    assert text == f"{live}\n{OURS}\n"
    assert find_token(filled(text), section=True) == TOKEN
    assert with_section(filled(text), OURS, DELIVERED) == text
    assert foreign_tokens(text) == 1  # so its owner is asked to correct that


@pytest.mark.parametrize("mark", ["```", "~~~", "````", "```python"])
def test_a_code_fence_that_was_never_closed_hides_no_section(mark: str) -> None:
    live = f"## Tools\n\nprinter\n\n{mark}\ncode\n"
    text = with_section(live, OURS, None)
    assert text == f"{live}\n{OURS}\n"
    assert find_token(filled(text), section=True) == TOKEN
    assert with_section(f"{filled(text)}\n## After\n", OURS, DELIVERED) == f"{text}\n## After\n"
