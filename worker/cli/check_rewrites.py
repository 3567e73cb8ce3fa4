"""doctor: what a config write would rewrite of the owner's files, so that it is refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from worker.cli.findings import Finding
from worker.cli.job_view import argument
from worker.gateway.includes import Include
from worker.gateway.rewrites import COMMENTS_GO, told
from worker.gateway.roster_reading import VISIBILITY_STAYS, LiveRoster
from worker.provisioning.rewrite_permission import Standing

_CHECK = "rewrites"


def check_rewrites(live: LiveRoster, standing: Standing, gateway: str) -> Iterator[Finding]:
    """``gateway``: its name. Reports what is allowed as well, and what only the gateway's own writes lose."""
    about = [one.key for one in standing.rewrites]
    command = f"`provisioner gateway allow-rewrite {argument(gateway)}`"
    if standing.refused:
        says = (
            f"the next config write is refused: at any write this OpenClaw release"
            f" {told(standing.rewrites, comments=standing.comments)}; {command} shows it and allows it"
        )
        yield Finding(_CHECK, "warning", says, about)
    elif standing.rewrites:
        whose = (
            "which is allowed here" if standing.allowed else "but only at its own writes, as ours put it back"
        )
        says = f"at any write this OpenClaw release {told(standing.rewrites)}, {whose}"
        yield Finding(_CHECK, "ok" if standing.allowed else "warning", says, about)
    if standing.comments:
        yield Finding(_CHECK, "warning", COMMENTS_GO[0].lower() + COMMENTS_GO[1:])
    if live.writes_through:
        yield from _owned(live)


def _owned(live: LiveRoster) -> Iterator[Finding]:
    roster = live.dialect.roster
    for include in live.includes:
        if not (include.touches("agents", roster) or include.touches("channels", "defaults")):
            continue
        if include.touches("agents", roster) and not _written(live, include):
            says = (
                f"openclaw.json has {include.path} from {include.named}, where this OpenClaw release does not"
                " write: no agent can be brought there. Move the agents back into openclaw.json, or (from"
                " 2026.8 on) into one file with nothing beside its $include"
            )
            yield Finding(_CHECK, "fault", says, [include.path])
        else:
            says = (
                f"openclaw.json has {include.path} from {include.named}: changes are written into that file"
            )
            yield Finding(_CHECK, "ok", says, [include.path])
    if not live.writes_visibility:
        yield Finding(_CHECK, "warning", VISIBILITY_STAYS[0].lower() + VISIBILITY_STAYS[1:])


def _written(live: LiveRoster, include: Include) -> bool:
    """Whether the release writes into it (2026.9.6); 2026.7.1 refuses each (measured)."""
    return live.dialect.roster == "entries" and include.alone and bool(include.keys)
