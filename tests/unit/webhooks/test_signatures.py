"""Signatures as every library of Standard Webhooks makes and verifies them."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest

from worker.secret_keys import read_keys
from worker.webhooks.messages import message_headers
from worker.webhooks.signatures import secret_of, shown_secret, signed_headers

KEY, OLD = "k" * 32, "o" * 32
WEBHOOK, OTHER = UUID(int=1), UUID(int=2)


def test_the_signature_is_the_one_of_the_libraries_own_tests() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert signed_headers([secret], message, 1614265330, b'{"test": 2432232314}') == {
        "webhook-id": message,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_webhook_has_a_secret_of_its_own_and_each_key_another() -> None:
    secrets = {secret_of(key, webhook) for key in (KEY, OLD) for webhook in (WEBHOOK, OTHER)}
    assert len(secrets) == 4
    assert {len(secret) for secret in secrets} == {32}
    shown = shown_secret(secret_of(KEY, WEBHOOK))
    assert shown == "whsec_" + base64.b64encode(secret_of(KEY, WEBHOOK)).decode()


def test_during_a_change_of_the_key_there_is_a_signature_for_each() -> None:
    def signatures(*keys: str) -> list[str]:
        header = message_headers(keys, WEBHOOK, "1", b"{}")["webhook-signature"]
        return header.split(" ")

    both = signatures(KEY, OLD)
    assert len(both) == 2
    assert all(one.startswith("v1,") for one in both)


def test_a_key_that_can_be_guessed_is_refused() -> None:
    assert read_keys("") == []
    assert read_keys(f" {KEY}\n{OLD} ") == [KEY, OLD]
    with pytest.raises(ValueError, match="at least 32 characters"):
        read_keys(f"{KEY} short")
