"""Ages such as 12h, 30d and 6w, as settings and commands take them."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def age_of(given: str) -> timedelta | None:
    """The age that is meant by a number with h, d or w behind it; None if it is no such thing."""
    found = re.fullmatch(r"(\d{1,5})\s*([hdw])", given.strip().lower())
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found is not None else None
