from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.escaped import escaped

SHOWN = {
    "plain": "plain",
    "Jörg 😀 漢字": "Jörg 😀 漢字",
    "a\nb\r\tc": "a\\nb\\r\\tc",
    "\x1b[2K\x00\x7f\x9b": "\\x1b[2K\\x00\\x7f\\x9b",
    "\u2028\u202e\ufeff": "\\u2028\\u202e\\ufeff",
    "half \ud83d": "half \\ud83d",
}


@pytest.mark.parametrize("text", SHOWN)
def test_what_could_pass_for_something_else_is_escaped(text: str) -> None:
    assert escaped(text) == SHOWN[text]


@given(st.text(st.characters()))
def test_it_is_one_line_that_any_stream_takes(text: str) -> None:
    shown = escaped(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_the_middle_of_a_long_text_is_left_out() -> None:
    assert escaped("a" * 500 + "b" * 500, 10) == "aaaaa[... 990 characters ...]bbbbb"
