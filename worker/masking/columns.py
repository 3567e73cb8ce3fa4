"""SQLAlchemy types that mask sentences, reports and results on their way into a table."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import NullType, TypeDecorator

from worker.masking import mask_all


class MaskedText(TypeDecorator[Any]):
    """The type of a sentence or a list of sentences, which it masks."""

    impl = NullType
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return mask_all(value)


class MaskedJson(TypeDecorator[Any]):
    """The type of a JSON document, every text of which it masks; None is stored as NULL."""

    impl = JSONB(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return mask_all(value)
