"""Errors as an operator sees them: one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from models.schemas import MixedDatabaseError
from worker.cli.console import complain
from worker.database_errors import DatabaseNotNow
from worker.errors import PermanentError, ProvisionerError
from worker.jobs.store.jobs import RequestConflictError
from worker.records.template_layers import LayerError
from worker.settings import SettingsError
from worker.standalone import CannotAddError
from worker.webhooks.addresses import WebhookUrlError
from worker.webhooks.registry import CannotChangeError
from worker.workspace.bundle import BundleError

FAILED, WRONG_USE, STOPPED = 1, 2, 130

_SQLSTATE_MISSING = {"42P01": "table", "42703": "column", "3F000": "schema"}


class WrongUseError(PermanentError):
    """An argument or option of the command cannot be right; the sentence says which and why."""


_WRONG = (
    WrongUseError,
    SettingsError,
    RequestConflictError,
    CannotAddError,
    CannotChangeError,
    LayerError,
    WebhookUrlError,
    BundleError,
)
EXPECTED = (ProvisionerError, RequestConflictError, MixedDatabaseError, SQLAlchemyError)


def report(error: Exception) -> None:
    """Print an expected error on stderr and raise ``typer.Exit`` with its code; ignore any other."""
    if isinstance(error, EXPECTED):
        complain("\n".join([sentence(error), *getattr(error, "__notes__", ())]))
        raise typer.Exit(exit_code(error)) from None


def exit_code(error: BaseException) -> int:
    """2 for wrong use, which includes the environment; 1 for everything else."""
    return WRONG_USE if isinstance(error, _WRONG) else FAILED


def sentence(error: BaseException) -> str:
    """The error as one sentence, with a full stop, and without the parameters of any statement."""
    text = _of_database(error) if isinstance(error, SQLAlchemyError) else str(error)
    text = text.strip() or type(error).__name__
    if text.split(maxsplit=1)[0].isalpha():  # not the name of an argument
        text = text[0].upper() + text[1:]
    return text + ("" if text[-1] in ".!?" or "\n" in text else ".")


def _of_database(error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else None
    lines = str(cause or type(error).__name__).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    missing = _SQLSTATE_MISSING.get(getattr(cause, "sqlstate", None) or "")
    if missing and ("provisioner" in first or missing == "column"):
        return f"This database lacks a {missing} that this version needs: run `provisioner migrate`."
    if missing:
        return (
            f"This database does not hold Mission Control ({first}): check DATABASE_URL, or make its tables"
            " for a trial of your own with `provisioner migrate --standalone`."
        )
    if getattr(error, "connection_invalidated", False) or getattr(cause, "sqlstate", None) is None:
        return f"The database cannot be used ({first}): check that it runs, and DATABASE_URL."
    if isinstance(error, DatabaseNotNow):
        return f"The database does not serve us: {error}"
    return f"The database refused: {first}"
