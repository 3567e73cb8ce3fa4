"""What masking hides in a text, and what it leaves readable (rules.md 29)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.masking import MASK, forget_all, mask, mask_all, remember, secrets_in
from worker.workspace.tokens import PLACEHOLDER, hash_token, mint_token

T = "q2v5hJMJ3C51gN8WCOWE__PX0pSVJNE-q9fOGHWKphA"
LOW = "hunter2"
PEM = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{LOW}\n{LOW}\n-----END OPENSSH PRIVATE KEY-----"

SECRETS = {
    "environment": f"DB_PASSWORD={LOW}",
    "lower case": f"auth_token={LOW}",
    "mixed case": f"AuthToken = {LOW}",
    "exported and quoted": f"export API_KEY='{LOW} and more'",
    "an escaped quote within": f'SECRET="a\\"{LOW}"',
    "blanks in an unquoted password": f"PASSWORD=correct {LOW}",
    "hyphens": f"client-secret={LOW}",
    "two words": f"api key: {LOW}",
    "YAML": f"  password: {LOW}",
    "YAML with a comment": f"password: {LOW}  # mine",
    "YAML, a list of variables": f"- name: AUTH_TOKEN\n  value: {LOW}",
    "YAML, below": f"token:\n  {LOW}",
    "YAML, a block": f"password: |\n  {LOW}\n  {LOW}\nother: 1",
    "JSON": f'{{"password": "{LOW}", "port": 1}}',
    "JSON in JSON": json.dumps(json.dumps({"apiKey": LOW})),
    "JSON, a list of variables": f'{{"name": "AUTH_TOKEN", "value": "{LOW}"}}',
    "arguments": f'["--password", "{LOW}"]',
    "a flag": f"run --token {LOW} now",
    "a header": f"X-Agent-Token: {LOW}",
    "a header of curl's": f'curl -H "X-Agent-Token: {LOW}" http://x',
    "a header without a blank": f'-H "X-Api-Key:{LOW}"',
    "bearer": f"Authorization: Bearer {LOW}",
    "basic": f"Authorization: Basic {LOW}",
    "bearer alone": f"we send Bearer {LOW}xy",
    "a cookie": f"Cookie: session={LOW}",
    "a query": f"https://x.example/?token={LOW}&page=2",
    "user and password": f"postgresql+psycopg://me:{LOW}@host/db",
    "a password with a slash": f"postgresql://me:p/{LOW}@host/db",
    "a password with an at sign": f"redis://:p@ss/{LOW}@host:6379/0",
    "netrc": f"machine x login me password {LOW}",
    "XML": f"<password>{LOW}</password>",
    "prose": f"the password is {LOW}",
    "another language": f"Passwort: {LOW}",
    "a private key": PEM,
    "a private key without an end": PEM.rpartition("\n")[0],
    "a random word near": "my key is 7f3k9x2m1q8z5w4v7f3k (hunter2)".replace("(hunter2)", ""),
}
"""Texts whose secret is nobody's known token; each holds LOW, or a random word."""

PLAIN = [
    "Ordinary prose about a token, its password and the secret of both.",
    "token: see TOOLS.md",
    "Your token: TOOLS.md",
    "password: ask your human",
    "The password is required.",
    '-H "X-Agent-Token: $AUTH_TOKEN"',
    "Authorization: Bearer $AUTH_TOKEN",
    "AUTH_TOKEN=$OTHER",
    "AUTH_TOKEN=<your-token>",
    f"AUTH_TOKEN={PLACEHOLDER}",
    "token: ${{ secrets.GITHUB_TOKEN }}",
    "password: {{ .Values.password }}",
    "max_tokens: 4096",
    "token_file: /etc/openclaw/token",
    "PASSWORD_FILE=/run/secrets/password",
    "run again with rotate_tokens to give it a new one, or `--rotate-tokens`",
    "set gateways.token of its row to gateway.auth.token of its openclaw.json",
    "unauthorized: gateway token mismatch (open a tokenized dashboard URL)",
    "invalid config: gateway.auth.token: expected string, received number",
    "session_key: agent:mc-0b0f3c52-90c1-4b6e-8f6b-0a3f1f8f2c11:main (token reused)",
    "key: Enter",
    "| token | description |",
    "https://blog.example/@somebody/post and http://host:8080/@x",
    "BASE_URL=http://x.example",
    "",
]


@pytest.fixture(autouse=True)
def _nothing_in_hand() -> Iterator[None]:
    forget_all()
    yield
    forget_all()


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_what_has_the_form_of_a_secret_is_hidden(text: str) -> None:
    masked = mask(f"before\n{text}\nafter")
    assert LOW not in masked
    assert "7f3k9x" not in masked
    assert MASK in masked
    assert masked.startswith("before\n")
    assert masked.endswith("after") or "PRIVATE KEY" in text


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_speaks_of_secrets_stays_readable(text: str) -> None:
    assert mask(text, [T]) == text


def test_hashes_and_tokens_of_known_makers_are_hidden_wherever_they_stand() -> None:
    for secret in (hash_token("x"), mint_token(), "sk-proj-abcdefghijkl0123", "ghp_" + "a1B2" * 9):
        assert mask(f"It says {secret} there.") == f"It says {MASK} there."


ENCODED = {
    "as it is": T,
    "within a word": f"x{T}y",
    "percent": "".join(f"%{ord(each):02X}" for each in T),
    "some percent": T.replace("_", "%5F").replace("-", "%2d"),
    "unicode escapes": "".join(f"\\u{ord(each):04x}" for each in T),
    "some unicode escapes": T.replace("q", "\\u0071"),
    "hexadecimal escapes": T.replace("_", "\\x5f"),
    "entities": T.replace("_", "&#95;").replace("q", "&#x71;"),
    "hexadecimal": T.encode().hex(),
    **{
        f"base64 with {lead!r} before": base64.b64encode(lead.encode() + T.encode() + b"tail").decode()
        for lead in ("", "u", "u:", "me:")
    },
    "urlsafe base64": base64.urlsafe_b64encode(b"user:" + T.encode()).decode(),
    "broken by a line's end": f"{T[:20]}\n{T[20:]}",
    "broken and indented": f"{T[:9]}\n    {T[9:30]}\r\n    {T[30:]}",
    "broken in a diff": f"+{T[:20]}\n+{T[20:]}",
    "broken in a quotation": f"> {T[:20]}\n> {T[20:]}",
    "broken by a backslash": f"{T[:20]}\\\n{T[20:]}",
    "broken by what nobody sees": f"{T[:20]}\u200b{T[20:]}",
    "broken by a mark of direction": f"{T[:9]}\u202e{T[9:30]}\u2066{T[30:]}",
    "broken by a variation selector": f"{T[:20]}\ufe0f{T[20:]}",
    "broken by a carriage return": f"{T[:20]}\r{T[20:]}",
    "broken by a line separator": f"{T[:20]}\u2028{T[20:]}",
    "broken by a colour": f"{T[:20]}\x1b[0m{T[20:]}",
    "percent twice": "".join(f"%25{ord(each):02X}" for each in T),
    "unicode escapes in JSON in JSON": "".join(f"\\\\u{ord(each):04x}" for each in T),
    "unicode escapes of JavaScript": "".join(f"\\u{{{ord(each):x}}}" for each in T),
    "unicode escapes of Python": "".join(f"\\U{ord(each):08x}" for each in T),
    "octal escapes": "".join(f"\\{ord(each):03o}" for each in T),
    "Markdown": T.replace("_", "\\_").replace("-", "\\-"),
    "hexadecimal with blanks": T.encode().hex(" "),
    "a fingerprint": T.encode().hex(":").upper(),
    "base64 of UTF-16": base64.b64encode(T.encode("utf-16-le")).decode(),
    "base64 twice": base64.b64encode(base64.b64encode(T.encode())).decode(),
    "base32": base64.b32encode(T.encode()).decode(),
}


@pytest.mark.parametrize("text", ENCODED.values(), ids=ENCODED)
def test_a_known_token_is_hidden_however_it_is_written(text: str) -> None:
    masked = mask(f"I noted {text} here.", [T])
    assert MASK in masked
    assert masked.startswith("I noted ")
    assert masked.endswith(" here.")
    left = masked.removeprefix("I noted ").removesuffix(" here.").replace(MASK, "")
    assert len(left) <= 16, left


@given(st.text(alphabet="abcXYZ019-_./+%&\"'\\ \u00e9", min_size=8, max_size=40), st.text(), st.text())
def test_any_known_secret_is_hidden_plain_quoted_and_in_json(secret: str, before: str, behind: str) -> None:
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        assert form not in mask(f"{before} {form} {behind}", [secret])


def test_a_short_secret_is_hidden_as_a_word_and_a_shorter_one_not_at_all() -> None:
    assert (
        mask("dev-box is developed by devs with devel", ["devel"])
        == f"dev-box is developed by devs with {MASK}"
    )
    assert mask("a dev box", ["dev", "", None]) == "a dev box"


def test_remembered_secrets_are_hidden_without_being_given() -> None:
    remember("correct-horse-battery", None, "")
    assert mask("It quoted correct-horse-battery.") == f"It quoted {MASK}."
    for number in range(200):
        remember(f"another-secret-{number}")
    assert "horse" in mask("It quoted correct-horse-battery.")


@pytest.mark.parametrize("cut", [T[:12], T[:30], T[5:], T[9:33]])
def test_a_part_of_a_known_token_is_hidden(cut: str) -> None:
    """A gateway, a proxy or a log may cut a sentence in the middle of a token."""
    for end in ("", "...", "\u2026 (cut)", "'"):
        assert mask(f"1008 refused {cut}{end}", [T]) == f"1008 refused {MASK}{end}"


def test_words_that_are_part_of_a_known_password_stay() -> None:
    assert mask("the openclaw-provisioner", ["openclaw-provisioner-7x"]) == "the openclaw-provisioner"


def test_every_text_of_a_value_is_masked() -> None:
    value = {"a": [f"AUTH_TOKEN={LOW}", 1, None, {"b": f"Bearer {T}"}], "ok": True}
    masked = {"a": [f"AUTH_TOKEN={MASK}", 1, None, {"b": f"Bearer {MASK}"}], "ok": True}
    assert mask_all(value) == masked


def test_a_known_secret_is_hidden_in_the_name_of_a_field_too() -> None:
    assert mask_all({f"{T}.md": 1, "token": {T: T}}, [T]) == {f"{MASK}.md": 1, "token": {MASK: MASK}}


def test_what_a_text_calls_a_secret_is_one_elsewhere_too() -> None:
    assert secrets_in("AUTH_TOKEN=correct-horse-battery\ntoken: see TOOLS.md\npassword: x1") == {
        "correct-horse-battery"
    }


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    once = mask(text, [T])
    assert mask(once, [T]) == once
