"""Whoever adds a webhook cannot have a worker connect to what is not public."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import Any

import pytest

from worker.webhooks import addresses
from worker.webhooks.addresses import (
    AddressRefusedError,
    WebhookUrlError,
    check_url,
    is_allowed,
    read_networks,
    resolve,
)

PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "2606:2800:220:1:248:1893:25c8:1946",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "::7f00:1",
    "fec0::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), [])


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_any_other_is_refused_however_it_is_written(address: str) -> None:
    assert not is_allowed(ip_address(address), [])


def test_a_network_that_is_named_is_allowed_and_no_other() -> None:
    allowed = read_networks("10.1.0.0/16, ::1/128 192.168.1.7")
    assert is_allowed(ip_address("10.1.2.3"), allowed)
    assert is_allowed(ip_address("::ffff:10.1.2.3"), allowed)
    assert is_allowed(ip_address("::1"), allowed)
    assert is_allowed(ip_address("192.168.1.7"), allowed)
    assert not is_allowed(ip_address("10.2.0.1"), allowed)
    assert not is_allowed(ip_address("169.254.169.254"), allowed)
    with pytest.raises(ValueError, match="host bits"):
        read_networks("10.1.2.3/16")


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def look_up(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_of_several_addresses_only_the_public_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "127.0.0.1", "8.8.8.8", "fe80::1%eth0", "8.8.4.4", "8.8.8.8")
    assert resolve("hook.example", 443, []) == ["8.8.8.8", "8.8.4.4"]
    answers(monkeypatch, "10.0.0.1", "::1")
    with pytest.raises(AddressRefusedError, match=r"only private addresses \(10\.0\.0\.1, ::1\)"):
        resolve("hook.example", 443, [])


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.wait(30))
    monkeypatch.setattr(addresses, "RESOLVE_S", 0.05)
    try:
        with pytest.raises(AddressRefusedError, match=r"cannot be resolved \(no answer from the resolver"):
            resolve("hook.example", 443, [])
    finally:
        answers.set()


def test_numbers_that_only_the_resolver_reads_as_an_address_are_refused_too() -> None:
    for host in ("127.1", "2130706433", "0x7f000001"):
        with pytest.raises(AddressRefusedError, match=r"private|cannot be resolved"):
            resolve(host, 443, [])
    with pytest.raises(AddressRefusedError, match="cannot be resolved"):
        resolve("nobody.invalid", 443, [])
    with pytest.raises(AddressRefusedError, match="cannot be resolved"):
        resolve("a" * 70 + ".example", 443, [])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hook.example/x", "must begin with https://"),
        ("hook.example", "needs a host"),
        ("https://", "needs a host"),
        ("https://hook.example:99999/", "needs a host"),
        ("https://hook.example/\r\nX: y", "needs a host"),
        ("https://hook.example/\u00e4", "printable ASCII"),
        ("https://hook.example/" + "x" * 2000, "at most 2000"),
        ("https://user:secret@hook.example/", "no user, password"),
        ("https://hook.example/#part", "fragment"),
        ("file:///etc/passwd", "needs a host"),
    ],
)
def test_a_url_that_no_webhook_can_have_is_a_sentence_without_it(url: str, why: str) -> None:
    with pytest.raises(WebhookUrlError, match=why) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_url_with_a_port_and_a_query_is_taken() -> None:
    parts = check_url("https://hook.example:8443/in?key=1")
    assert (parts.hostname, parts.port, parts.query) == ("hook.example", 8443, "key=1")
