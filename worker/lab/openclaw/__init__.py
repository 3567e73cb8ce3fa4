"""Real OpenClaw gateways for the demo and the tests: from npm, on loopback; they end with this process."""

from __future__ import annotations

from worker.lab.openclaw.install import Installed, InstallFailed, NpmFailed, OpenClaw, RegistryRefused
from worker.lab.openclaw.running import GatewayNotReady, GatewayRefused, RunningGateway

__all__ = [
    "GatewayNotReady",
    "GatewayRefused",
    "InstallFailed",
    "Installed",
    "NpmFailed",
    "OpenClaw",
    "RegistryRefused",
    "RunningGateway",
]
