"""Fixtures of the connection tests: a device, a script, a gateway that follows it, and a check for leaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.gateway.scripted import Script, scripted_gateway
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey

Connect = Callable[[], GatewayConnection]
SOON_S = 20.0
"""Well below the deadline that a call has by default: so a shorter one was kept, on a loaded machine too."""


@pytest.fixture(scope="session")
def device() -> DeviceKey:
    return DeviceKey.generate()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def gateway(script: Script) -> Iterator[GatewayAddress]:
    with scripted_gateway(script) as address:
        yield address


@pytest.fixture
def connect(gateway: GatewayAddress, device: DeviceKey) -> Iterator[Connect]:
    """Opens connections to the gateway, and closes them at the end of the test."""
    opened: list[GatewayConnection] = []

    def open_one() -> GatewayConnection:
        opened.append(GatewayConnection.open(gateway, device, deadline_s=5))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Checks that every thread a test started ends soon after it."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 5
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, until - time.monotonic()))
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not left
