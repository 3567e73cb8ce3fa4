"""Everything that a broker and a database hold, as text to search for secrets."""

from __future__ import annotations

import base64
import contextlib
import re

import redis
from sqlalchemy import Engine, inspect, text

_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")


def with_decoded(said: str) -> str:
    """A text, and what its base64 parts say: kombu packs message bodies so."""
    decoded = []
    for part in _ENCODED.findall(said):
        with contextlib.suppress(ValueError):
            decoded.append(base64.b64decode(part + "=" * (-len(part) % 4), b"-_").decode(errors="ignore"))
    return "\n".join([said, *decoded])


def all_keys(url: str) -> str:
    """Every key of the broker's database with its value."""
    found = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1000):
            kind = client.type(key)
            value: object = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"set": client.smembers,
                b"list": lambda k: client.lrange(k, 0, -1),
                b"zset": lambda k: client.zrange(k, 0, -1),
            }[kind](key)
            found.append(f"{key!r} {value!r}")
    return with_decoded("\n".join(found))


def all_rows(engine: Engine) -> str:
    """Every row of every table, but for gateways.token and gateways.url, which are the owner's own."""
    inspector, found = inspect(engine), []
    with engine.connect() as connection:
        for schema in ("public", "provisioner"):
            for table in inspector.get_table_names(schema):
                less = " - 'token' - 'url'" if table == "gateways" else ""
                rows = connection.execute(text(f"SELECT (to_jsonb(t){less})::text FROM {schema}.{table} t"))
                found += [f"{schema}.{table} {row[0]}" for row in rows]
    return "\n".join(found)
