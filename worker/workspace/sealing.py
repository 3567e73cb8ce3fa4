"""Packs a bundle for the database: compressed, and encrypted where BUNDLE_KEY is set (rules.md 52). Pure."""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.workspace.bundle import MOST_TAR_BYTES, BundleError

_NONCE = 12


def seal(tar: bytes, keys: Sequence[str], place: str) -> bytes:
    """The tar compressed, and encrypted by AES-256-GCM with the first of ``keys`` if there is any.

    ``place``: what the body belongs to, its bundle's id: it cannot be opened as another's.
    """
    packed = zlib.compress(tar)
    if not keys:
        return packed
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(_secret(keys[0])).encrypt(nonce, packed, place.encode())


def unseal(body: bytes, keys: Sequence[str], place: str, *, encrypted: bool) -> bytes:
    """The tar of a body that `seal` made. Raises BundleError if no key opens it, or it is damaged."""
    packed = _decrypted(body, keys, place) if encrypted else body
    try:
        opener = zlib.decompressobj()
        tar = opener.decompress(packed, MOST_TAR_BYTES)
    except zlib.error:
        raise BundleError(f"Bundle {place} is damaged: it cannot be unpacked.") from None
    if not opener.eof:
        raise BundleError(f"Bundle {place} is damaged: it is cut off, or too large.")
    return tar


def _decrypted(body: bytes, keys: Sequence[str], place: str) -> bytes:
    if not keys:
        raise BundleError(f"Bundle {place} is encrypted: set BUNDLE_KEY to the key that the workers have.")
    for key in keys:
        try:
            return AESGCM(_secret(key)).decrypt(body[:_NONCE], body[_NONCE:], place.encode())
        except (InvalidTag, ValueError):
            continue
    raise BundleError(
        f"Bundle {place} cannot be decrypted: it was made with another BUNDLE_KEY, or is damaged."
        " While a key is"
        " being changed, BUNDLE_KEY holds the new one and the old one."
    )


def _secret(key: str) -> bytes:
    return hmac.digest(key.encode(), b"openclaw-provisioner bundle", hashlib.sha256)
