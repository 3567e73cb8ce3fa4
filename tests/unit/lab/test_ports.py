"""Ports of gateways that start at the same time."""

from __future__ import annotations

import sys

import pytest

from worker.lab.openclaw import running
from worker.lab.openclaw.running import GatewayNotReady


@pytest.mark.skipif(sys.platform != "linux", reason="claims are Linux's abstract sockets")
def test_two_gateways_that_do_not_listen_yet_get_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    first = running._free_ports()
    monkeypatch.setattr(running, "_PORTS", [first])
    with pytest.raises(GatewayNotReady, match="No twenty free ports"):
        running._free_ports()
