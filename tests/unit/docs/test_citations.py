"""Code, tests and docs cite docs/design by number, and every citation resolves (docs/design/README.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
DESIGN = ROOT / "docs" / "design"
NUMBERED = ("rules", "gateways", "celery", "interfaces", "decisions")

SEARCHED = ("worker", "tasks", "models", "templates", "tests", "docs", "docker", ".ci")
SUFFIXES = {"", ".j2", ".md", ".py", ".sh", ".toml", ".yml"}
HERE = Path(__file__).relative_to(ROOT).as_posix()
"""This file holds citations that must not resolve."""
NOT_DOCUMENTS = {"agents.md", "memory.md", "nope.md", "shared.md", "soul.md"}
"""Names that look like documents: workspace files in other cases, and files that tests make up."""

_HEADING = re.compile(r"^#{2,4} (D?\d+(?:\.\d+)?)\. \S", re.MULTILINE)
_NUMBER = r"D?\d+(?:\.\d+)?\b"
_CITATION = re.compile(rf"\b({'|'.join(NUMBERED)})\.md ({_NUMBER}(?:(?:-|, ?){_NUMBER})*)")
_DOCUMENT = re.compile(r"(?<![\w.*<>{-])((?:\.\./|[\w-]+/)*[a-z][a-z0-9_-]*\.md)\b(?!\.)")
_OTHER_FORM = re.compile(
    r"§|\b(?:behaviour|rules?|design|decisions?|contract|section) D?\d+\b|(?<![\w.])D\d{1,2}\b(?!['\"])",
    re.IGNORECASE,
)


class Cited(NamedTuple):
    """An entry of a numbered document, as some file cites it."""

    document: str
    number: str


def citations(text: str) -> Iterator[Cited]:
    """Every entry that ``text`` cites; a range cites all that is in it."""
    for match in _CITATION.finditer(_joined(text)):
        for part in re.split(r", ?", match[2]):
            first, _, last = part.partition("-")
            yield Cited(match[1], first)
            if last and first.strip("D").isdecimal() and last.strip("D").isdecimal():
                letter = "D" if first.startswith("D") else ""
                between = range(int(first.strip("D")) + 1, int(last.strip("D")))
                yield from (Cited(match[1], f"{letter}{number}") for number in between)
            if last:
                yield Cited(match[1], last)


def other_forms(text: str) -> list[str]:
    """What reads like a citation, but is not written in the one form."""
    return _OTHER_FORM.findall(_CITATION.sub("", _joined(_HEADING.sub("", text))))


def documents(text: str) -> set[str]:
    """The documents that ``text`` names."""
    return {name for name in _DOCUMENT.findall(text) if name.rpartition("/")[2] not in NOT_DOCUMENTS}


def is_there(document: str, cited_in: Path) -> bool:
    """Whether a document is in the repository: by its path, or beside the other docs by its name."""
    places = (cited_in.parent, ROOT, ROOT / "docs", DESIGN)
    return any((place / document).is_file() for place in places)


def numbers_of(text: str) -> list[str]:
    """The numbers of a document's headings."""
    return _HEADING.findall(text)


def _joined(text: str) -> str:
    """``text`` with its lines joined: a citation may be broken at the end of one."""
    return re.sub(r"\s*\n\s*(?:# )?", " ", text)


@cache
def _known() -> frozenset[Cited]:
    return frozenset(
        Cited(name, number)
        for name in NUMBERED
        for number in numbers_of((DESIGN / f"{name}.md").read_text(encoding="utf-8"))
    )


def _files() -> list[Path]:
    found = [path for folder in SEARCHED for path in sorted((ROOT / folder).rglob("*"))]
    found += sorted(ROOT.glob("*"))
    return [
        path
        for path in found
        if path.is_file() and path.suffix in SUFFIXES and not path.name.startswith(".")
        if path.relative_to(ROOT).as_posix() != HERE
    ]


TEXTS: Sequence[tuple[Path, str]] = [
    (path, path.read_text(encoding="utf-8", errors="replace")) for path in _files()
]


def test_each_citation_resolves() -> None:
    unresolved = [
        f"{path.relative_to(ROOT)}: {cited.document}.md {cited.number}"
        for path, text in TEXTS
        for cited in citations(text)
        if cited not in _known()
    ]
    assert unresolved == []


def test_nothing_is_cited_in_another_form() -> None:
    strange = [
        f"{path.relative_to(ROOT)}: {form}"
        for path, text in TEXTS
        if path != DESIGN / "README.md"  # which says what numbers there are
        for form in other_forms(text)
    ]
    assert strange == []


def test_each_document_that_is_named_is_in_the_repository() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in TEXTS
        for name in sorted(documents(text))
        if not is_there(name, path)
    ]
    assert missing == []


@pytest.mark.parametrize("name", NUMBERED)
def test_a_document_has_each_number_once_and_in_order(name: str) -> None:
    numbers = numbers_of((DESIGN / f"{name}.md").read_text(encoding="utf-8"))
    assert len(set(numbers)) == len(numbers)
    assert numbers == sorted(numbers, key=lambda number: float(number.lstrip("D")))


def test_the_readme_of_the_folder_lists_each_document() -> None:
    readme = (DESIGN / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[(\w+)\.md\]", readme, re.MULTILINE))
    assert listed == set(NUMBERED) == {path.stem for path in DESIGN.glob("*.md")} - {"README"}


def test_the_citations_are_found() -> None:
    assert sum(len(list(citations(text))) for _, text in TEXTS) > 200


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("kept on every run (rules.md 16).", ["16"]),
        ("the table of rules.md 16, 17, 19: three", ["16", "17", "19"]),
        ("as rules.md 30-33 say", ["30", "31", "32", "33"]),
        ("celery.md 0.1, and more", ["0.1"]),
        ("# broken (decisions.md\n# D5, D7), 3 s", ["D5", "D7"]),
        ('"""Broken (rules.md\n    46)."""', ["46"]),
    ],
)
def test_a_citation_is_read(text: str, cited: list[str]) -> None:
    assert [each.number for each in citations(text)] == cited


@pytest.mark.parametrize("planted", ["rules.md 99", "rules.md 44-99", "decisions.md D99", "celery.md 0.9"])
def test_a_planted_citation_does_not_resolve(planted: str) -> None:
    assert not set(citations(planted)) <= _known()


@pytest.mark.parametrize("planted", ["behaviour 16", "see rule 16", "design D1", "(D1)", "§ 4", "section 4"])
def test_another_form_is_noticed(planted: str) -> None:
    assert other_forms(f"It is kept ({planted}).")


@pytest.mark.parametrize("planted", ["contract.md", "docs/lost.md", "../rulez.md"])
def test_a_document_that_is_not_there_is_noticed(planted: str) -> None:
    assert [is_there(name, DESIGN / "README.md") for name in documents(f"as {planted} has it")] == [False]


def test_a_number_twice_is_noticed() -> None:
    assert numbers_of("## 1. One\n\n### 1.5. Half\n\n## 1. Again\n\n## Not numbered\n") == ["1", "1.5", "1"]
