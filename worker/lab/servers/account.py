"""Chooses the account that a server runs as: Postgres refuses root, so root uses another existing account."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from worker.errors import PermanentError


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for the servers: None (our own) unless we are root; then `postgres`, or else `nobody`.

    Never creates an account. initdb needs one with an entry in passwd, which both of these have. Raises
    PermanentError if neither exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise PermanentError(
        "Postgres cannot run as root, and this machine has no account `postgres` or `nobody`."
    )
