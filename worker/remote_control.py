"""Answers `celery control` commands that this worker cannot carry out with an error instead of "ok"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel

_CANCEL = "a job is its row in the database, and comes again: use `provisioner cancel ID`"
REFUSED = {
    "time_limit": "threads have no time limits: no task of ours runs longer than 30 seconds",
    "rate_limit": "a limited task would hold up all others: WORKER_CONCURRENCY bounds what runs at once",
    "revoke": _CANCEL,
    "revoke_by_stamped_headers": _CANCEL,
    "terminate": f"a thread cannot be stopped, and {_CANCEL}",
    "pool_grow": "set WORKER_CONCURRENCY and start the worker anew",
    "pool_shrink": "set WORKER_CONCURRENCY and start the worker anew",
}


def _refusing(why: str) -> Callable[..., dict[str, str]]:
    def refuse(_: Any, *__: Any, **___: Any) -> dict[str, str]:
        return {"error": why}

    return refuse


for _name, _why in REFUSED.items():
    Panel.data[_name] = _refusing(_why)
