"""docs/troubleshooting.md holds the program's sentences: all of them, and none that it does not say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.deploy.sentences import ROOT, literals, raised

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SAYS = [
    phrase
    for cell in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    for phrase in re.findall(r"`([^`]+)`", cell)
]
TELLING = 10
"""So many letters of a phrase tell a sentence from others."""
OTHERS = ("simulator", "demo")
"""The simulator speaks as a gateway; what the demo says stands above its own logs."""
NOBODYS = {
    # Leases: the loser is silent, and the row goes on with who has it.
    "Another worker has taken over",
    "Another writer has taken over",
    # Faults of ours in calling our own parts.
    "a subscriber must not call the gateway",
    "a cron expression always comes again",
    "is not started",
    "is not open",
    "still runs after",
    "the connection ended while it was idle",
    # Whoever meets it says it in words of his own: doctor, or the one who looks again.
    "the roster of",
    # On the page, but all its words are the gateway's own.
    "… refused …",
}


def pattern(phrase: str) -> re.Pattern[str]:
    """Matches the sentence that ``phrase`` is a part of, whatever is filled in."""
    return re.compile(".*?".join(re.escape(part) for part in re.split("…", phrase)), re.DOTALL)


def sources() -> list[Path]:
    return [
        file for folder in ("worker", "tasks", "models") for file in sorted((ROOT / folder).rglob("*.py"))
    ]


@cache
def everything_said() -> list[str]:
    lines = "\n".join(text for file in sources() for text in literals(file)).splitlines()
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("phrase", SAYS)
def test_a_sentence_of_the_page_is_one_of_the_programs(phrase: str) -> None:
    telling = max(phrase.split("…"), key=len)
    assert any(map(pattern(phrase).search, (line for line in everything_said() if telling in line))), phrase


def test_each_error_is_on_the_page() -> None:
    known = [pattern(phrase) for phrase in SAYS if sum(map(str.isalpha, phrase)) >= TELLING]
    missing = [
        f"{file.relative_to(ROOT)}: {sentence}"
        for file in sources()
        if not any(part in str(file.relative_to(ROOT)) for part in OTHERS)
        for sentence in raised(file)
        if len(sentence.split()) >= 4
        and not any(part in sentence for part in NOBODYS)
        and not any(phrase.search(sentence) for phrase in known)
    ]
    assert missing == []


def test_the_page_is_not_short_of_sentences() -> None:
    assert len(SAYS) > 120
