"""Finds agents of the gateway's owner that use one of our folders under another path, such as a symlink."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from worker.gateway.client import Call, GatewayClient
from worker.gateway.errors import GatewayError, PermanentGatewayError, UnknownAgent

MOST_ASKED = 50
"""How many other agents' files are listed, at most, before one of our agents is removed with its files."""


def user_by_another_path(
    client: GatewayClient, openclaw_id: str, others: Collection[str]
) -> tuple[str | None, bool]:
    """Find which of the ``others`` uses the agent's files.

    Returns the id of one that does, or None, and in that case whether the files of all could be seen. Two
    agents with a file of equal name, size and time in milliseconds share one folder. Raises GatewayError.
    """
    if not others:
        return None, True
    asked = list(others)[:MOST_ASKED]
    calls = [Call("agents.files.list", {"agentId": key}) for key in (openclaw_id, *asked)]
    seen: list[set[tuple[str, ...]] | None] = []
    for answer in client.call_many(calls):
        if isinstance(answer, GatewayError) and not isinstance(answer, PermanentGatewayError):
            raise answer
        unknown = None if isinstance(answer, PermanentGatewayError) else answer
        seen.append(set() if isinstance(answer, UnknownAgent) else _files(unknown))
    own, theirs = seen[0], dict(zip(asked, seen[1:], strict=True))
    for key, files in theirs.items():
        if own and files and own & files:
            return key, True
    return None, None not in seen and len(asked) == len(others)


def _files(answer: Mapping[str, Any] | None) -> set[tuple[str, ...]] | None:
    """Name, size and time of each file, or None if the answer does not list them."""
    listed = answer.get("files") if answer is not None else None
    if not isinstance(listed, list):
        return None
    return {
        (str(file.get("name")), str(file.get("size")), str(file["updatedAtMs"]))
        for file in listed
        if isinstance(file, Mapping) and not file.get("missing") and file.get("updatedAtMs")
    }
