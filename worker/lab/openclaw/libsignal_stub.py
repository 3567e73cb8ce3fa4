"""A stand-in for `libsignal`, which older releases take from a git address that npm cannot always reach.

Only WhatsApp needs the real package. Its names must exist so that they can be imported; none does anything.
"""

from __future__ import annotations

import json
from pathlib import Path

_FIRST_RELEASE_WITHOUT = (2026, 5)
_CLASSES = ("ProtocolAddress", "SessionBuilder", "SessionCipher", "SessionRecord")
_FUNCTIONS = {
    "src/crypto.js": ("calculateMAC", "decrypt", "encrypt", "deriveSecrets"),
    "src/curve.js": ("calculateSignature", "verifySignature", "generateKeyPair", "calculateAgreement"),
}


def needs_libsignal_stub(release: str) -> bool:
    """Whether the release depends on libsignal: up to 2026.3.13, no longer in 2026.5.22 (gateways.md 2)."""
    year, month = release.split(".")[:2]
    return (int(year), int(month)) < _FIRST_RELEASE_WITHOUT


def write_libsignal_stub(folder: Path) -> dict[str, str]:
    """Write the package into ``folder``; return the ``overrides`` for the package.json there."""
    stub = folder / "libsignal"
    (stub / "src").mkdir(parents=True)
    (stub / "package.json").write_text(
        json.dumps({"name": "libsignal", "version": "2.0.1", "main": "index.js"})
    )
    classes = ", ".join(f"{name}: class {{}}" for name in _CLASSES)
    (stub / "index.js").write_text(f"module.exports = {{ {classes} }};\n")
    for path, names in _FUNCTIONS.items():
        refuse = 'const refuse = () => { throw new Error("libsignal is not installed"); };\n'
        functions = ", ".join(f"{name}: refuse" for name in names)
        (stub / path).write_text(f"{refuse}module.exports = {{ {functions} }};\n")
    return {"libsignal": "file:./libsignal", "@whiskeysockets/libsignal-node": "file:./libsignal"}
