"""Times such as 30m, 6h and 2d, as people type and read them."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def duration_of(given: str) -> timedelta | None:
    """The time that is meant by a number with m, h or d behind it; None if it is no such thing."""
    found = re.fullmatch(r"(\d{1,6})\s*([mhd])", given.strip())
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found is not None else None


def shown_duration(duration: timedelta) -> str:
    """The duration in the largest unit of which it is a whole number, in minutes at least."""
    minutes = int(duration.total_seconds() // 60)
    for size, unit in ((1440, "d"), (60, "h")):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
