"""Unpacks compressed messages within a size limit: a kilobyte can hold a gigabyte."""

from __future__ import annotations

import bz2
import lzma
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from worker.escaped import escaped

LONGEST_BODY = 1024 * 1024
"""The longest body of a message, in bytes."""
FAULT = "openclaw-fault"
"""The header that says why a body was left out, as the end of a sentence. Senders cannot set it."""
TOO_LARGE = f"its arguments are too large: at most {LONGEST_BODY} bytes are taken"


def _zlib(packed: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(packed, LONGEST_BODY + 1)


def _bzip2(packed: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, LONGEST_BODY + 1)


def _lzma(packed: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=64 * 1024 * 1024).decompress(packed, LONGEST_BODY + 1)


_UNPACK: Mapping[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": _zlib,
    "application/x-bz2": _bzip2,
    "application/x-lzma": _lzma,
    "application/x-xz": _lzma,
}
"""By kombu's names of the compressions."""


def unpack(message: MutableMapping[str, Any]) -> None:
    """Decompress a framed ``message`` in place.

    A message that is too large, or whose compression cannot be undone within the limit, keeps its headers and
    loses its body.
    """
    headers = dict(message.get("headers") or {})
    packing, body, fault = headers.pop("compression", None), message.get("body") or "", None
    headers.pop(FAULT, None)
    in_base64 = message["properties"].get("body_encoding") == "base64"
    size = len(body) * 3 // 4 if in_base64 else len(body)
    if packing and size <= LONGEST_BODY:
        try:
            unpacked = _UNPACK[str(packing)](b64decode(body))
        except (KeyError, ValueError, EOFError, OSError, zlib.error, lzma.LZMAError):
            fault = f"its compression {escaped(str(packing), 60)} cannot be undone"
        else:
            size, body = len(unpacked), b64encode(unpacked).decode()
            message["properties"] = {**message["properties"], "body_encoding": "base64"}
    if size > LONGEST_BODY:
        fault = TOO_LARGE
    if fault is not None:
        body, headers[FAULT] = "", fault
    message["headers"], message["body"] = headers, body
