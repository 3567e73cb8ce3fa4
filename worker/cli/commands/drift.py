"""``provisioner drift``: the agents that dry runs found to differ."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.console import Json, plain, show_list, table
from worker.cli.environment import engine
from worker.cli.lookup import find
from worker.records.drift import drifted_agents, in_words

_NOTHING = (
    "No agent is known to differ. Dry runs look, by a schedule for one:"
    " provisioner schedule add GATEWAY --every 6h --dry-run"
)


def drift(
    gateway: Annotated[
        str | None, typer.Argument(help="Only this gateway's agents: its name or id.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the agents that dry runs found to differ, and what differs.

    They stay listed until a sync, an update or another dry run finds nothing that differs.
    """
    with engine().connect() as connection:
        found = drifted_agents(connection, find(connection, "gateway", gateway) if gateway else None)
    shown = table("Agent", "Gateway", "Since (UTC)", last="What differs", folds=True)
    for one in found:
        words = "; ".join(in_words(one.differs))
        shown.add_row(plain(one.agent), plain(one.gateway), f"{one.since:%Y-%m-%d %H:%M}", plain(words))
    items = [{**vars(one), "what": in_words(one.differs)} for one in found]
    show_list(items, shown, nothing=_NOTHING, as_json=as_json)
