"""Signatures by Standard Webhooks 1.0.0 (https://www.standardwebhooks.com), scheme v1: HMAC-SHA256.

A webhook's secret is derived from WEBHOOK_KEY and the webhook's id, so no table holds it. During a change of
the key, WEBHOOK_KEY holds the new one and the old one: a message then has a signature for each.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from uuid import UUID


def secret_of(key: str, webhook_id: UUID) -> bytes:
    """The webhook's secret: the HMAC-SHA256 of its id under the key, 32 bytes."""
    return hmac.digest(key.encode(), b"openclaw-provisioner webhook " + webhook_id.bytes, hashlib.sha256)


def shown_secret(secret: bytes) -> str:
    """The secret as it is given to whoever receives the webhook."""
    return "whsec_" + base64.b64encode(secret).decode()


def signed_headers(
    secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes
) -> Mapping[str, str]:
    """The headers of a message. ``message_id``: the same for each attempt; ``timestamp``: of this attempt."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (hmac.digest(secret, content, hashlib.sha256) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join("v1," + base64.b64encode(one).decode() for one in signatures),
    }
