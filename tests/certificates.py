"""A self-signed certificate for 127.0.0.1, and for names, which a client trusts only if it is told to."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(
    folder: Path, *, expired: bool = False, names: Sequence[str] = (), address: str = "127.0.0.1"
) -> ssl.SSLContext:
    """A server's TLS context with a new certificate for ``address`` and ``names``, which is also written to
    ``folder``/gateway.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()  # in the name too: OpenSSL takes certificates of one name for one
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"gateway {number:x}")])
    now = datetime.datetime.now(datetime.UTC)
    place = x509.IPAddress(ipaddress.ip_address(address))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), number)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=-1 if expired else 1))
        .add_extension(
            x509.SubjectAlternativeName([place, *(x509.DNSName(name) for name in names)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "gateway.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
