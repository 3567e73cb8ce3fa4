"""``provisioner bundles``, and ``provisioner agent export|import``: what is kept of agents (rules.md 52)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer
from sqlalchemy import Connection, text

from worker.cli.console import (
    Json,
    ago,
    by_reason,
    counted,
    named,
    note,
    plain,
    short,
    show_list,
    size,
    table,
)
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import WrongUseError
from worker.cli.lookup import find, find_bundle_id
from worker.cli.options import REQUESTED_BY, Make, from_request
from worker.cli.submit import NoWait, ask, follow
from worker.jobs.requests import ExportAgent, RestoreAgent
from worker.jobs.store.jobs import enqueue
from worker.masking import mask_all
from worker.records.bundles import StoredBundle, all_bundles, find_bundle, keep, open_bundle
from worker.workspace.bundle import MOST_TAR_BYTES, Bundle, BundleError, masked_copy, read_tar, to_tar


def bundles(as_json: Json = False) -> None:
    """List the bundles that are kept of agents, and what each holds. Contents are not shown."""
    with engine().connect() as connection:
        found = all_bundles(connection)
    shown = table("Agent", "Bundle", "Made", "For", "Files", last="Not in it")
    for one in found:
        files = one.manifest["files"]
        left = [f"{name} (masked)" for name in one.manifest["masked"]]
        left += [item["what"] for item in one.manifest["left_out"]]
        shown.add_row(
            plain(one.agent_name or one.openclaw_id or short(one.agent_id)),
            short(one.id),
            ago(_age_s(one)),
            one.reason,
            f"{len(files)}, {size(sum(files.values()))}" if files else "none",
            plain(named(left)),
        )
    items = [_document(one) for one in found]
    nothing = "No bundle is kept: `provisioner delete` and `provisioner agent export` make them."
    show_list(items, shown, nothing=nothing, as_json=as_json)


def _age_s(stored: StoredBundle) -> float:
    return float(max(0.0, (stored.now - stored.made_at).total_seconds()))


def _document(stored: StoredBundle) -> dict[str, Any]:
    return {
        "id": stored.id,
        "agent_id": stored.agent_id,
        "agent_name": stored.agent_name,
        "gateway_id": stored.gateway_id,
        "openclaw_id": stored.openclaw_id,
        "reason": stored.reason,
        "job_id": stored.job_id,
        "whole": stored.whole,
        "encrypted": stored.encrypted,
        "size": stored.size,
        "made_at": stored.made_at,
        "expires_at": stored.expires_at,
        "files": [
            {"path": path, "size": octets} for path, octets in sorted(stored.manifest["files"].items())
        ],
        "masked": stored.manifest["masked"],
        "left_out": stored.manifest["left_out"],
    }


@from_request(ExportAgent)
def export(
    *,
    make: Make[ExportAgent],
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", metavar="ID", help="This bundle that is kept, instead of making one."),
    ] = None,
) -> None:
    """Write a bundle of an agent to stdout, as a tar. It holds no token.

    A worker makes it now; of an agent that was deleted it is the bundle that was kept. Without BUNDLE_KEY
    whatever looks like a secret is masked in it.
    """
    if is_terminal():
        raise WrongUseError(
            "A tar is not for a terminal: `provisioner agent export NAME > FILE`, or give it to a program."
        )
    keys = operator_settings().bundle_keys
    with engine().connect() as connection:
        stored = _kept(connection, make(connection).agent_id, bundle)
    if stored is None:
        stored = _make(make)
    with engine().connect() as connection:
        opened = open_bundle(connection, stored, keys)
    sys.stdout.buffer.write(to_tar(opened))
    sys.stdout.buffer.flush()
    _say_what_it_lacks(opened)


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def _kept(connection: Connection, agent_id: UUID, given: str | None) -> StoredBundle | None:
    """The bundle that is kept, if one is meant: of an agent that has no row any more, the best. Raises
    WrongUseError."""
    there = connection.execute(_AGENT, {"agent_id": agent_id}).one_or_none() is not None
    if given is None and there:
        return None
    bundle_id = find_bundle_id(connection, given) if given is not None else None
    stored = find_bundle(connection, agent_id, bundle_id)
    if stored is None or stored.agent_id != agent_id:
        raise WrongUseError(
            f"There is no such bundle of agent {agent_id}: `provisioner bundles` lists those that are kept."
        )
    return stored


def _make(make: Make[ExportAgent]) -> StoredBundle:
    with engine().begin() as connection:
        request = make(connection)
        job = enqueue(connection, request)
    done = follow(job.job_id, as_json=True, quiet=True)
    for warning in done.warnings:
        note(warning)
    with engine().connect() as connection:
        stored = find_bundle(connection, request.agent_id, UUID(str((done.result or {})["bundle"])))
    assert stored is not None
    return stored


def _say_what_it_lacks(bundle: Bundle) -> None:
    note(f"{counted(len(bundle.files), 'file')}, {size(bundle.size)}.")
    if bundle.masked:
        note(f"Masked in it, which BUNDLE_KEY of the workers would spare: {named(sorted(bundle.masked))}.")
    for each in by_reason((one.what, one.why) for one in bundle.left_out):
        note(f"Not in it: {each}.")


def import_(
    file: Annotated[str, typer.Argument(help="A tar of `provisioner agent export`; - is stdin.")],
    board: Annotated[str, typer.Option(help="Name or id of the board that it joins.")],
    allow_masked: Annotated[
        bool, typer.Option("--allow-masked", help="Also take files in which a secret was masked.")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Also take a bundle of another organization or deployment.")
    ] = False,
    wake: Annotated[bool, typer.Option("--no-wake", help="Do not wake the agent at the end.")] = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Make a new agent of a bundle, on a board of any gateway. Exits 1 if that fails."""
    bundle = read_tar(_read(file))
    keys = operator_settings().bundle_keys
    agent_id = uuid4()
    with engine().begin() as connection:
        board_id = find(connection, "board", board)
        _require_ours(connection, board_id, bundle, foreign=foreign)
        if not keys:
            bundle = masked_copy(bundle, mask_all)
        bundle_id = keep(connection, agent_id, bundle, "import", keys)

    def make(_: Connection) -> RestoreAgent:
        return RestoreAgent(
            agent_id=agent_id,
            bundle_id=bundle_id,
            board_id=board_id,
            allow_masked=allow_masked,
            wake=not wake,
            requested_by=REQUESTED_BY,
        )

    ask(make, no_wait=no_wait, as_json=as_json)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MOST_TAR_BYTES + 1)
    try:
        with Path(file).expanduser().open("rb") as opened:
            return opened.read(MOST_TAR_BYTES + 1)
    except OSError as error:
        raise WrongUseError(f"The bundle {file} cannot be read: {error.strerror}.") from None


def _require_ours(connection: Connection, board_id: UUID, bundle: Bundle, *, foreign: bool) -> None:
    """Raise BundleError for a bundle of another organization than the board's, unless that is meant."""
    found = connection.execute(_BOARD, {"board_id": board_id}).one()
    theirs = bundle.agent.get("organization_id")
    if not foreign and theirs != str(found.organization_id):
        raise BundleError(
            f"The bundle is of organization {theirs}, and board {found.name!r} of {found.organization_id}:"
            " if it is meant to come here from another deployment, give --foreign too."
        )


_AGENT = text("SELECT id FROM agents WHERE id = :agent_id")
_BOARD = text("SELECT name, organization_id FROM boards WHERE id = :board_id")
