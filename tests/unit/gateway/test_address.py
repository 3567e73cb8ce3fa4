"""A gateway's address: what is accepted, what is removed, and that no token is shown (rules.md 29)."""

from __future__ import annotations

import pytest

from worker.gateway.address import GatewayAddress
from worker.gateway.errors import BadAddress


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ws://gw:18789", "ws://gw:18789"),
        ("  WSS://Gw.Example/path  ", "wss://gw.example/path"),
        ("ws://gw:18789/?token=hush", "ws://gw:18789/"),
        ("ws://user:hush@gw:18789", "ws://gw:18789"),
        ("ws://gw:18789/#token=hush", "ws://gw:18789/"),
        ("ws://[::1]:18789/x", "ws://[::1]:18789/x"),
    ],
)
def test_url_keeps_the_place_and_drops_what_may_be_secret(given: str, kept: str) -> None:
    assert GatewayAddress(given).url == kept


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "has no URL"),
        ("   ", "has no URL"),
        ("http://hush@gw:18789/?token=hush", "write ws://gw:18789"),
        ("https://gw/?token=hush", "write wss://gw"),
        ("gw:18789?token=hush", "must begin with ws:// or wss://"),
        ("ftp://gw", "must begin with ws:// or wss://"),
        ("ws://", "must begin with ws:// or wss://"),
        ("ws://gw:hush", "cannot be read"),
        ("ws://gw:99999", "cannot be read"),
        ("ws://[::1", "cannot be read"),
    ],
)
def test_unusable_url_is_refused_with_a_sentence_that_repeats_no_secret(url: str, says: str) -> None:
    with pytest.raises(BadAddress) as caught:
        GatewayAddress(url, token="hush")
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


def test_token_shows_in_no_repr() -> None:
    assert "hush" not in repr(GatewayAddress("ws://gw/?token=hush", token="hush"))


def test_blank_token_counts_as_none() -> None:
    assert GatewayAddress("ws://gw", token="  ").token is None
    assert GatewayAddress("ws://gw", token="  ").token_fingerprint is None


def test_fingerprint_tells_tokens_apart_without_showing_them() -> None:
    one, two = (GatewayAddress("ws://gw", token=token).token_fingerprint for token in ("hush", "hush2"))
    assert one is not None
    assert len(one) == 16
    assert one != two
    assert "hush" not in one


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("ws://127.0.0.1:1", True),
        ("ws://127.9.9.9:1", True),
        ("ws://[::1]:1", True),
        ("ws://localhost", True),
        ("ws://10.0.0.1", False),
        ("ws://localhost.example", False),
    ],
)
def test_loopback_is_told_by_the_host_alone(url: str, loopback: bool) -> None:
    assert GatewayAddress(url).is_loopback is loopback
