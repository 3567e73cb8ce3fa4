from __future__ import annotations

import pytest
from sqlalchemy.exc import SQLAlchemyError

from worker.cli.errors import WrongUseError, exit_code, sentence
from worker.errors import PermanentError, TransientError
from worker.jobs.store.jobs import RequestConflictError
from worker.settings import SettingsError
from worker.standalone import CannotAddError


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("the gateway is away", "The gateway is away."),
        ("Is it up?", "Is it up?"),
        ("request_id 'x' was used before.", "request_id 'x' was used before."),
        ("Several:\n  one\n  two", "Several:\n  one\n  two"),
        ("", "PermanentError."),
    ],
)
def test_an_error_is_shown_as_a_sentence(said: str, shown: str) -> None:
    assert sentence(PermanentError(said)) == shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongUseError("x"), 2),
        (SettingsError("x"), 2),
        (RequestConflictError("x"), 2),
        (CannotAddError("x"), 2),
        (PermanentError("x"), 1),
        (TransientError("x"), 1),
        (SQLAlchemyError("x"), 1),
    ],
)
def test_wrong_use_and_failure_have_their_own_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code
