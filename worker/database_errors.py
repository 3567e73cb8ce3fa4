"""Tells database errors that mean "not now" from all others, by one table of SQLSTATE classes.

"Not now" means that the condition passes, with or without an operator's help, and that waiting loses nothing.
Any other error is a fault of ours, or of the request (22xxx, 23xxx, 54xxx), and fails the job that caused it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, OperationalError


class Meaning(NamedTuple):
    """What a class of errors means.

    ``says``: what is wrong; "it" is the database. ``cure``: what an operator can do. ``anew``: open sessions
    may still raise the error after its cause is gone, so they are replaced. ``one_statement``: other
    statements succeed meanwhile, for example while one row is locked, so only the caller that got the error
    waits.
    """

    says: str
    cure: str
    anew: bool = False
    one_statement: bool = False


_POOLER = "where a pooler stands before it, check its mode (docs/operations.md)"
_MIGRATE = "run `provisioner migrate`, and check DATABASE_URL"
NOT_NOW: Mapping[str, Meaning] = {
    "08": Meaning("the connection was lost", "check that it runs, and DATABASE_URL"),
    "25006": Meaning(
        "it takes no writes", "wait for the failover, or turn default_transaction_read_only off", anew=True
    ),
    "25P03": Meaning("it ended an idle transaction", "see idle_in_transaction_session_timeout"),
    "25P04": Meaning("it ended a long transaction", "see transaction_timeout"),
    "26000": Meaning("a prepared statement is gone", _POOLER, anew=True, one_statement=True),
    "28": Meaning("it does not let us in", "check the role, its password and pg_hba.conf", anew=True),
    "3D000": Meaning("the database does not exist", "check DATABASE_URL"),
    "3F000": Meaning("a schema is missing", _MIGRATE, anew=True),
    "40": Meaning("another transaction was in the way", "passes by itself", one_statement=True),
    "42501": Meaning("a right is missing", "grant it: docs/operations.md lists them all"),
    "42P05": Meaning("a prepared statement is another's", _POOLER, anew=True, one_statement=True),
    "42P01": Meaning("a table is missing", _MIGRATE, anew=True),
    "53": Meaning("it is short of resources", "see its disk, memory and max_connections"),
    "55006": Meaning("an object is in use", "passes by itself", one_statement=True),
    "55P03": Meaning("a lock was not to be had", "see lock_timeout, and who holds it", one_statement=True),
    "57014": Meaning(
        "a statement took too long", "see who holds its locks (pg_stat_activity)", one_statement=True
    ),
    "57": Meaning("it is stopping or starting", "see its log"),
    "58": Meaning("its system failed", "see its log and its disk"),
    "XX": Meaning("it met an error of its own", "see its log", one_statement=True),
}
_OLD_PLAN = Meaning("a table was changed just now", "passes by itself", anew=True, one_statement=True)
_NOT_THOSE = ("40002",)  # a deferred constraint: the fault is in the data that was written
_UNREACHABLE = Meaning("it cannot be reached", "check that it runs, and DATABASE_URL")


class DatabaseNotNow(OperationalError):
    """The database does not serve us now. The message holds the server's own words and the cure."""

    def __init__(
        self, meaning: Meaning, cause: BaseException, *, disconnected: bool = False, wanted: str = ""
    ) -> None:
        super().__init__(None, None, cause, hide_parameters=True, connection_invalidated=disconnected)
        self.meaning = meaning
        self.wanted = wanted
        self.sqlstate: str | None = getattr(cause, "sqlstate", None)

    def __str__(self) -> str:
        code = f", SQLSTATE {self.sqlstate}" if self.sqlstate else ""
        message = first_line(self.orig)
        return f"{self.meaning.says} ({message}{code}): {self.wanted or self.meaning.cure}"

    def __reduce__(self) -> tuple[object, ...]:
        return DatabaseNotNow, (self.meaning, self.orig)


def meaning_of(error: BaseException | None) -> Meaning | None:
    """The meaning of a driver's error that means "not now", or None for any other error."""
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is None:
        names = {kind.__name__ for kind in type(error).__mro__}
        return _UNREACHABLE if names & {"OperationalError", "InterfaceError"} else None
    if sqlstate in _NOT_THOSE:
        return None
    if sqlstate == "0A000":  # it has many causes; only the function that raised it identifies this one
        diagnosis = getattr(error, "diag", None)
        changed = getattr(diagnosis, "source_function", None) == "RevalidateCachedQuery"
        return _OLD_PLAN if changed else None
    return next((NOT_NOW[sqlstate[:n]] for n in range(5, 1, -1) if sqlstate[:n] in NOT_NOW), None)


def of_one_statement(error: BaseException) -> bool:
    """Whether ``error`` concerns one statement only, while the database serves others."""
    return isinstance(error, DatabaseNotNow) and error.meaning.one_statement


def first_line(error: BaseException | None) -> str:
    """The first line of the server's message, without passwords, in at most 300 characters."""
    lines = str(error or "").strip().splitlines()
    return re.sub(r"://[^@\s]*@", "://…@", lines[0])[:300] if lines else type(error).__name__


def translate(context: ExceptionContext) -> None:
    """SQLAlchemy error handler: raises DatabaseNotNow in place of an error that means "not now", so that one
    table decides for every statement."""
    wrapped = context.sqlalchemy_exception
    if not isinstance(wrapped, DBAPIError):
        return
    meaning = meaning_of(context.original_exception)
    if meaning is None:
        return
    if meaning.anew and context.connection is not None:
        context.is_disconnect = True
    cause = context.original_exception
    wanted = wanted_rights(first_line(cause), context.statement or "")
    raise DatabaseNotNow(meaning, cause, disconnected=context.is_disconnect, wanted=wanted)


_DENIED = re.compile(r"permission denied for (?:table|relation|view) (\w+)")
_USES = {"INSERT": r"INSERT\s+INTO\s+", "UPDATE": r"UPDATE\s+", "DELETE": r"DELETE\s+FROM\s+"}


def wanted_rights(message: str, statement: str) -> str:
    """The GRANT without which ``statement`` was refused; Postgres's own ``message`` names only the table.

    "" if the message is not about a denied table.
    """
    denied = _DENIED.search(message)
    if denied is None:
        return ""
    table = rf"((?:\w+\.)?{denied[1]})\b"
    uses = {right: re.search(before + table, statement) for right, before in _USES.items()}
    named = next((found[1] for found in uses.values() if found), None)
    mentioned = re.search(table, statement)
    name = named or (mentioned[1] if mentioned else denied[1])
    rights = ", ".join(["SELECT", *(right for right, found in uses.items() if found)])
    return f"GRANT {rights} ON {name} to the worker's role: docs/operations.md lists all that it needs"
