"""The device key's file: one key in any race, never accessible to others, never half written."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from worker.gateway.device import DeviceKey, DeviceKeyError


def decode_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_first_use_makes_a_private_file_and_the_next_finds_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "device.pem"
    first = DeviceKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert DeviceKey.load_or_create(path).device_id == first.device_id
    assert os.listdir(path.parent) == ["device.pem"]


def test_device_id_is_the_hash_of_the_public_key_and_signatures_verify() -> None:
    key = DeviceKey.generate()
    public = decode_base64url(key.public_key)
    assert key.device_id == hashlib.sha256(public).hexdigest()
    signature = key.sign("v2|é|x")
    assert "=" not in signature
    verifier = Ed25519PublicKey.from_public_bytes(public)
    verifier.verify(decode_base64url(signature), "v2|é|x".encode())
    with pytest.raises(InvalidSignature):
        verifier.verify(decode_base64url(signature), b"other")


def test_many_processes_at_first_use_end_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "device.pem"
    code = (
        "import sys, pathlib; from worker.gateway.device import DeviceKey; sys.stdin.read();"
        " print(DeviceKey.load_or_create(pathlib.Path(sys.argv[1])).device_id)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    ids = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert ids == {DeviceKey.load_or_create(path).device_id}
    assert os.listdir(tmp_path) == ["device.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_key_that_others_can_use_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "device.pem"
    DeviceKey.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(DeviceKeyError, match=f"mode {mode:04o}.*chmod 600"):
        DeviceKey.load_or_create(path)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_damaged_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "device.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DeviceKeyError, match="damaged"):
        DeviceKey.load_or_create(path)
    assert path.read_bytes() == content


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.pem"
    path.write_bytes(
        X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    with pytest.raises(DeviceKeyError, match="Ed25519"):
        DeviceKey.load_or_create(path)


def test_folder_instead_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DeviceKeyError, match="not a file"):
        DeviceKey.load_or_create(tmp_path)


def test_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceKeyError, match="GATEWAY_DEVICE_KEY"):
        DeviceKey.load_or_create(tmp_path / "file" / "device.pem")


def test_repr_shows_the_public_id_only(tmp_path: Path) -> None:
    path = tmp_path / "device.pem"
    key = DeviceKey.load_or_create(path)
    secret = "".join(path.read_text().splitlines()[1:-1])
    assert key.device_id in repr(key)
    assert secret not in repr(key)
