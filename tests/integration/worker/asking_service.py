"""A service that asks by send_task as docs/enqueue.md says, until its stdin ends: over and over by an
application that it has had from the start, and by a new one. It has nothing of ours on its path.

Arguments: the page's block of Python, the id of an agent. Prints a line of JSON for each ask: when it began,
the seconds that it took, what the service was told.
"""

import ast
import json
import select
import sys
import time
import uuid
from typing import Any

import celery  # noqa: F401  # its import is not what is timed
import kombu.exceptions  # noqa: F401

PAUSE_S = 0.5

_page = ast.parse(sys.argv[1]).body
_at = next(n for n, node in enumerate(_page) if isinstance(node, ast.Try))
SET_UP = compile(ast.Module(_page[:_at], []), "docs/enqueue.md", "exec")
ASK = compile(ast.Module(_page[_at:], []), "docs/enqueue.md", "exec")


def service() -> dict[str, Any]:
    names: dict[str, Any] = {"agent_id": sys.argv[2]}
    exec(SET_UP, names)
    return names


def ask(names: dict[str, Any]) -> None:
    names["job_id"] = str(uuid.uuid4())
    at, began = time.time(), time.monotonic()
    try:
        exec(ASK, names)
        told = "asked"
    except SystemExit as error:
        told = str(error)
    print(json.dumps([at, time.monotonic() - began, told]), flush=True)


old = service()
while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
    ask(old)
    ask(service())
