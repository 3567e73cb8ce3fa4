"""doctor: does Mission Control answer at BASE_URL?"""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from urllib.parse import urlsplit

from worker.cli.findings import Finding
from worker.gateway.address import GatewayAddress
from worker.gateway.errors import BadAddress

TIMEOUT_S = 3.0
_CHECK = "BASE_URL"


def check_base_url(base_url: str, gateway_url: str) -> Iterator[Finding]:
    """GET {base_url}/healthz, as an agent would (interfaces.md 7). Never a fault: agents call from the
    gateway's machine, which may see more or less than this one."""
    if not base_url:
        says = "not set here, so not tried: set it as the workers have it, to have it checked"
        yield Finding(_CHECK, "warning", says)
        return
    parts = urlsplit(base_url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if _is_loopback(parts.hostname or "") and not _gateway_is_here(gateway_url):
        says = f"{shown} names the gateway's own machine to the agents there: set one that they can reach"
        yield Finding(_CHECK, "warning", says)
    try:
        with urllib.request.urlopen(f"{base_url}/healthz", timeout=TIMEOUT_S) as answer:
            yield Finding(_CHECK, "ok", f"{shown}/healthz answers {answer.status}")
            return
    except urllib.error.HTTPError as error:
        error.close()
        why = f"answers {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        why = f"does not answer ({getattr(reason, 'strerror', None) or type(reason).__name__})"
    says = f"{shown}/healthz {why}: agents could not report; start Mission Control, or correct BASE_URL"
    yield Finding(_CHECK, "warning", says)


def _gateway_is_here(url: str) -> bool:
    try:
        return GatewayAddress(url).is_loopback
    except BadAddress:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
