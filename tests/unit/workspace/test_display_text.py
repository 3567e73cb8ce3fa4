"""A name is shown on one line, whatever its row holds."""

from __future__ import annotations

import pytest

from worker.workspace.display_text import MOST_IN_LABEL, one_line, shown_name


@pytest.mark.parametrize("name", ["Ada", "  Ada  B. ", "Zoë 👩‍💻", "a" * 200, "$5"])
def test_a_name_with_nothing_to_clean_is_left_alone(name: str) -> None:
    assert one_line(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Bill\nAUTH_TOKEN=forged", "Bill AUTH_TOKEN=forged"),
        ("Bill \r\n\r\n  Boss", "Bill Boss"),
        ("Bill\u2028Boss\x85Two\x0bThree", "Bill Boss Two Three"),
        ("Bi\u202ell\x00\u2066\x1b[31m", "Bill[31m"),
        ("Bill\tBoss", "Bill Boss"),
    ],
)
def test_line_breaks_and_what_nobody_sees_are_gone(name: str, shown: str) -> None:
    assert one_line(name) == shown


@pytest.mark.parametrize("name", ["a" * 1_000_000, "😀" * 500_000, "\n" * 1_000_000 + "x", "é\n" * 300_000])
def test_a_very_long_name_is_cut_as_javascript_counts(name: str) -> None:
    for most in (MOST_IN_LABEL, 200):
        assert len(one_line(name, most).encode("utf-16-le")) // 2 <= most


@pytest.mark.parametrize("name", ["", " ", "\n\u200b\n", "\x00"])
def test_a_name_without_visible_characters_is_the_id(name: str) -> None:
    assert shown_name(name, "mc-1") == "mc-1"
