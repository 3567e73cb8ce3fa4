"""The device key by which gateways recognize us: one Ed25519 key for all workers of a deployment.

The setting GATEWAY_DEVICE_KEY names its file (gateways.md 1).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.errors import PermanentError


class DeviceKeyError(PermanentError):
    """The device key's file cannot be used; the sentence names it and says why."""


class DeviceKey:
    """The device's key and the ids derived from it. Its repr shows the public id only."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        raw = private_key.public_key().public_bytes_raw()
        self.device_id = hashlib.sha256(raw).hexdigest()
        self.public_key = encode_base64url(raw)

    @classmethod
    def generate(cls) -> DeviceKey:
        """Make a key that exists only in memory."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> DeviceKey:
        """Load the key from ``path``, creating it first if there is none.

        Processes that do so at the same time end up with one key: each writes its own to a temporary file and
        links it to ``path``, and only the first link succeeds.

        Raises `DeviceKeyError` if the file is unreadable, damaged, not an Ed25519 key or accessible to
        others, or if its folder is not writable.
        """
        try:
            if not path.exists():
                _create(path)
            return cls(_load(path))
        except OSError as error:
            raise _unusable(path, error) from None

    @classmethod
    def check(cls, path: Path) -> None:
        """Raise `DeviceKeyError` if `load_or_create` would, without creating anything."""
        try:
            if path.exists():
                _load(path)
                return
            folder = next(parent for parent in path.absolute().parents if parent.exists())
            if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
                raise OSError(0, f"{folder} cannot be written")
        except OSError as error:
            raise _unusable(path, error) from None

    def sign(self, payload: str) -> str:
        """The signature of ``payload`` in UTF-8, as base64url without padding."""
        return encode_base64url(self._private_key.sign(payload.encode()))

    def __repr__(self) -> str:
        return f"DeviceKey(device_id={self.device_id!r})"


def encode_base64url(raw: bytes) -> str:
    """base64url without padding, as the protocol requires."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _unusable(path: Path, error: OSError) -> DeviceKeyError:
    return DeviceKeyError(
        f"the device key file {path} cannot be used ({error.strerror}): GATEWAY_DEVICE_KEY must"
        " name a file that the worker may read, in a folder that it may write on first use"
    )


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)


def _load(path: Path) -> Ed25519PrivateKey:
    if not path.is_file():
        raise DeviceKeyError(f"the device key {path} is not a file: GATEWAY_DEVICE_KEY must name one")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise DeviceKeyError(
            f"the device key file {path} can be used by others (mode {mode:04o}): run `chmod 600` on it"
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DeviceKeyError(
            f"the device key file {path} is damaged or locked by a passphrase: restore it from a backup, or"
            " delete it to get a new key, which every remote gateway must then approve"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise DeviceKeyError(
            f"the device key file {path} holds another kind of key: an Ed25519 one is needed"
        )
    return key
