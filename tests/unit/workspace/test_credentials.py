from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PermanentError
from worker.masking import mask
from worker.workspace.tokens import (
    PLACEHOLDER,
    find_token,
    find_value,
    hash_token,
    mint_token,
    verify_token,
    with_token,
)

T = "q2v5hJMJ3C51gN8WCOWE__PX0pSVJNE-q9fOGHWKphA"

FOUND = {
    "plain": f"AUTH_TOKEN={T}",
    "no newline at the end, others before": f"# Tools\n\nBASE_URL=http://x\nAUTH_TOKEN={T}",
    "CRLF": f"BASE_URL=http://x\r\nAUTH_TOKEN={T}\r\n",
    "lone CR": f"BASE_URL=http://x\rAUTH_TOKEN={T}\r",
    "byte order mark": f"\ufeffAUTH_TOKEN={T}",
    "zero-width space in front": f"\u200bAUTH_TOKEN={T}",
    "zero-width space behind": f"AUTH_TOKEN={T}\u200b\n",
    "zero-width joiner at =": f"AUTH_TOKEN\u200d={T}",
    "no-break space": f"AUTH_TOKEN\u00a0=\u00a0{T}",
    "indented": f"    AUTH_TOKEN={T}",
    "tab": f"\tAUTH_TOKEN={T}",
    "trailing blanks": f"AUTH_TOKEN={T}   \t",
    "dash bullet": f"- AUTH_TOKEN={T}",
    "star bullet": f"* AUTH_TOKEN={T}",
    "plus bullet": f"+ AUTH_TOKEN={T}",
    "dot bullet": f"\u2022 AUTH_TOKEN={T}",
    "numbered": f"2. AUTH_TOKEN={T}",
    "numbered with bracket": f"2) AUTH_TOKEN={T}",
    "check box": f"- [x] AUTH_TOKEN={T}",
    "nested bullet": f"- Keys:\n  - AUTH_TOKEN={T}",
    "backticks": f"`AUTH_TOKEN={T}`",
    "backticks behind a bullet": f"- `AUTH_TOKEN={T}`",
    "backticks and comma": f"- `AUTH_TOKEN={T}`,",
    "backticks around the key": f"- `AUTH_TOKEN` = {T}",
    "backticks around the value": f"AUTH_TOKEN=`{T}`",
    "backticks around both": f"- `AUTH_TOKEN`=`{T}`",
    "bold key": f"- **AUTH_TOKEN**={T}",
    "bold line": f"**AUTH_TOKEN={T}**",
    "double quotes": f'AUTH_TOKEN="{T}"',
    "single quotes": f"AUTH_TOKEN='{T}'",
    "curly quotes": f"AUTH_TOKEN=\u201c{T}\u201d",
    "single curly quotes": f"AUTH_TOKEN=\u2018{T}\u2019",
    "quotes within backticks": f'`AUTH_TOKEN="{T}"`',
    "quote never closed": f'AUTH_TOKEN="{T}',
    "quoted key": f'"AUTH_TOKEN"="{T}"',
    "export": f"export AUTH_TOKEN={T}",
    "export, quoted": f'export AUTH_TOKEN="{T}"',
    "export in backticks": f"- `export AUTH_TOKEN='{T}'`",
    "spaces around =": f"AUTH_TOKEN = {T}",
    "comment behind": f"AUTH_TOKEN={T} # do not share",
    "comment behind a quoted value": f'AUTH_TOKEN="{T}" # "do not" share',
    "words behind": f"AUTH_TOKEN={T} (yours)",
    "semicolon": f"AUTH_TOKEN={T};",
    "code block": f"```bash\nAUTH_TOKEN={T}\n```",
    "code block never closed": f"```bash\nAUTH_TOKEN={T}",
    "the last wins": f"AUTH_TOKEN=old\nAUTH_TOKEN={T}",
    "an empty one does not win": f"AUTH_TOKEN={T}\nAUTH_TOKEN=\nAUTH_TOKEN=''\nAUTH_TOKEN= # none",
    "a comment does not win": f"AUTH_TOKEN={T}\n# AUTH_TOKEN=old\n  #AUTH_TOKEN=old",
    "a quotation does not win": f"AUTH_TOKEN={T}\n> AUTH_TOKEN=planted",
    "mid-line does not win": f"AUTH_TOKEN={T}\nThe line AUTH_TOKEN=planted is an example",
    "a longer name does not win": f"AUTH_TOKEN={T}\nAUTH_TOKEN_OLD=x\nMY_AUTH_TOKEN=y\nAUTH_TOKENS=z",
    "another case does not win": f"AUTH_TOKEN={T}\nauth_token=x",
}

NOT_FOUND = {
    "empty": "",
    "no value": "AUTH_TOKEN=",
    "only a comment": f"# AUTH_TOKEN={T}",
    "comment in a list": f"- # AUTH_TOKEN={T}",
    "only a quotation": f"> AUTH_TOKEN={T}",
    "prose": f"Your AUTH_TOKEN={T}",
    "colon": f"AUTH_TOKEN: {T}",
    "table": f"| AUTH_TOKEN | {T} |",
    "the placeholder": f"AUTH_TOKEN={PLACEHOLDER}",
    "curl": f'curl -H "X-Agent-Token: {T}"',
}

IN_SECTION = {
    "its own": f"# A\n\n## Tools\n\nAUTH_TOKEN={T}",
    "other text around": f"AUTH_TOKEN=before\n## Tools\nAUTH_TOKEN={T}\n## Notes\nAUTH_TOKEN=after",
    "a title ends it": f"## Tools\nAUTH_TOKEN={T}\n# Other\nAUTH_TOKEN=after",
    "the last section": f"## Tools\nAUTH_TOKEN=planted\n## X\n## Tools\nAUTH_TOKEN={T}",
    "subheadings belong to it": f"## Tools\n### Credentials\nAUTH_TOKEN={T}",
    "a comment in a code block is no heading": f"## Tools\n```bash\n# first\n## second\nAUTH_TOKEN={T}\n```",
    "a fence left open before it": f"```\n## Tools\nAUTH_TOKEN={T}",
    "heading of an editor": f"##  tools: ##\r\nAUTH_TOKEN={T}",
    "quoted headings do not count": f"## Tools\nAUTH_TOKEN={T}\n> ## Tools\n> AUTH_TOKEN=planted",
    "moved there by the gateway with its title": f"## Tools\n\n# TOOLS.md\n\nAUTH_TOKEN={T}",
    "moved there with our own heading": f"## Tools\n\n## Tools\n\nAUTH_TOKEN={T}",
}

NOT_IN_SECTION = {
    "no section": f"AUTH_TOKEN={T}",
    "another section": f"## Tooling\nAUTH_TOKEN={T}",
    "a deeper heading": f"### Tools\nAUTH_TOKEN={T}",
    "an earlier section only": f"## Tools\nAUTH_TOKEN={T}\n## Tools\nnothing",
}


@pytest.mark.parametrize("text", FOUND.values(), ids=FOUND)
def test_token_is_found_in_every_shape_that_a_live_file_has(text: str) -> None:
    assert find_token(text, section=False) == T


@pytest.mark.parametrize("text", NOT_FOUND.values(), ids=NOT_FOUND)
def test_what_is_no_credential_line_is_no_token(text: str) -> None:
    assert find_token(text, section=False) is None


@pytest.mark.parametrize("text", IN_SECTION.values(), ids=IN_SECTION)
def test_in_agents_md_the_last_tools_section_counts(text: str) -> None:
    assert find_token(text, section=True) == T


@pytest.mark.parametrize("text", NOT_IN_SECTION.values(), ids=NOT_IN_SECTION)
def test_in_agents_md_nothing_but_the_tools_section_counts(text: str) -> None:
    assert find_token(text, section=True) is None


def test_other_values_are_found_by_their_key() -> None:
    text = "- BASE_URL = `https://mc.example.org/root`\nAUTH_TOKEN=x"
    assert find_value(text, "BASE_URL") == "https://mc.example.org/root"
    assert find_value(text, "BOARD_ID") is None
    assert find_value("ABC=1", "A.C") is None


@given(st.text())
def test_reading_any_text_ends_without_an_error(text: str) -> None:
    find_token(text, section=False)
    find_token(f"## Tools\n{text}", section=True)


def test_tokens_are_32_random_bytes() -> None:
    tokens = {mint_token() for _ in range(50)}
    assert len(tokens) == 50
    assert {len(base64.urlsafe_b64decode(token + "=")) for token in tokens} == {32}


def test_hash_has_mission_controls_format_and_verifies_its_token_only() -> None:
    stored = hash_token(T)
    algorithm, iterations, salt, digest = stored.split("$")
    raw_salt = base64.urlsafe_b64decode(salt + "==")
    expected = hashlib.pbkdf2_hmac("sha256", T.encode(), raw_salt, 200_000)
    assert (algorithm, iterations, len(raw_salt)) == ("pbkdf2_sha256", "200000", 16)
    assert digest == base64.urlsafe_b64encode(expected).decode().rstrip("=")
    assert stored != hash_token(T)
    assert verify_token(T, stored)
    assert not verify_token(T + "x", stored)
    assert not verify_token("", stored)


_SALT = "mmnOGwLCVOKaBJ0s5uhI_Q"
_DIGEST = "uqD32rgHP8baxdMmIfUrpGJflQJIFrWSGhm0A-Xx4Nw"


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "x",
        "$$$",
        f"pbkdf2_sha256$200000${_SALT}",
        f"pbkdf2_sha256$200000${_SALT}${_DIGEST}$",
        f"pbkdf2_sha256$200000${_SALT}${_DIGEST}\n",
        f"pbkdf2_sha256$0${_SALT}${_DIGEST}",
        f"pbkdf2_sha256$-1${_SALT}${_DIGEST}",
        f"pbkdf2_sha256$999999999${_SALT}${_DIGEST}",
        f"pbkdf2_sha256$\u0661${_SALT}${_DIGEST}",
        f"pbkdf2_sha1$200000${_SALT}${_DIGEST}",
        f"pbkdf2_sha256$200000${_SALT}$",
        f"pbkdf2_sha256$200000${_SALT}$abc",
        f"pbkdf2_sha256$200000$aaaaa${_DIGEST}",
        f"pbkdf2_sha256$200000$!!${_DIGEST}",
    ],
)
def test_a_malformed_hash_verifies_nothing(stored: str | None) -> None:
    assert not verify_token(T, stored)


def test_with_token_fills_the_placeholder() -> None:
    assert with_token(f"a\nAUTH_TOKEN={PLACEHOLDER}\n", T) == f"a\nAUTH_TOKEN={T}\n"


@pytest.mark.parametrize("token", ["", "a b", "sec\nret", "sec'ret", "sec$ret", "sec`ret", "s\u00e9cret"])
def test_a_token_that_no_line_can_carry_is_refused_unquoted(token: str) -> None:
    with pytest.raises(PermanentError, match="rotate_tokens") as refusal:
        with_token(PLACEHOLDER, token)
    assert not token or token not in str(refusal.value)


@pytest.mark.parametrize("text", FOUND.values(), ids=FOUND)
def test_a_token_is_masked_in_every_shape_in_which_it_is_found(text: str) -> None:
    assert T not in mask(text, [T])
    assert T not in mask(f"+{text}", [])
