"""What has been played on this machine, and the tables of docs/reliability.md that are made from it.

``python -m tests.chaos.record`` writes the tables anew. Runs before a scenario's last loss do not count, and
one whose last run lost something says so. What the record does not know keeps the figures that it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.scenario import Scenario

ROOT = Path(__file__).parents[2]
RECORD = ROOT / ".chaos" / "record.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
NOT_YET = "not yet"


@dataclass(frozen=True)
class Played:
    """One scenario that was played. ``agents``: on each gateway; ``broken``: how often something was broken;
    ``faults``: what was lost; ``full``: in a full run."""

    name: str
    seed: str
    agents: int
    took_s: float
    broken: int
    faults: list[str]
    full: bool = False


@dataclass(frozen=True)
class Failed:
    """One deed on one release that was done with one failure at each of ``points`` of its ``total`` points;
    ``faults``: at how many of them something was lost."""

    deed: str
    release: str
    points: int
    total: int
    took_s: float
    faults: int


@dataclass
class Record:
    """All that was noted, in the order of time."""

    played: list[Played] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


def note(one: Played | Failed) -> None:
    """Add it to the record."""
    RECORD.parent.mkdir(exist_ok=True)
    with RECORD.open("a") as record:
        record.write(json.dumps({"what": type(one).__name__, **asdict(one)}) + "\n")


def read() -> Record:
    """The record; an empty one if there is none."""
    record = Record()
    for line in RECORD.read_text().splitlines() if RECORD.exists() else ():
        values: dict[str, Any] = json.loads(line)
        if values.pop("what") == Played.__name__:
            record.played.append(Played(**values))
        else:
            record.failed.append(Failed(**values))
    return record


def table_of_scenarios(scenarios: Iterable[Scenario], played: Sequence[Played], page: str = "") -> str:
    """A line for each scenario, in Markdown. ``page``: where what was not played has its figures."""
    noted = _lines(page)
    lines = [
        "| scenario | what is broken | runs | most agents | things broken | lost |",
        "|---|---|---|---|---|---|",
    ]
    for scenario in scenarios:
        own = [one for one in played if one.name == scenario.name]
        runs = since_the_last_loss(own)
        cells = noted.get(scenario.name, ["", NOT_YET, "", "", ""])[1:]
        if own:
            last = own[-1]
            most = len(scenario.releases) * max((one.agents for one in runs), default=last.agents)
            broken = sum(one.broken for one in runs)
            lost = "nothing" if runs else "something at last"
            cells = [str(len(runs)), str(most or ""), f"{broken:,}", lost]
        lines.append(f"| {' | '.join([scenario.name, scenario.breaks, *cells])} |")
    return "\n".join(lines) + "\n"


def table_of_points(
    deeds: Iterable[str], releases: Sequence[str], failed: Sequence[Failed], page: str = ""
) -> str:
    """A line for each deed, in Markdown, with a column for each release. ``page``: as above."""
    most, noted = _most_points(failed), _lines(page)
    lines = [
        f"| deed | {' | '.join(f'points on {release}' for release in releases)} | lost |",
        f"|---|{'---|' * len(releases)}---|",
    ]
    for deed in deeds:
        own = [most.get((deed, release)) for release in releases]
        before = noted.get(deed, [NOT_YET] * len(releases))
        counts = [
            f"{one.points:,} of {one.total:,}" if one else then
            for one, then in zip(own, before, strict=False)
        ]
        faults = sum(one.faults for one in own if one)
        lost = f"at {faults}" if faults else "nothing" if any(own) else before[-1]
        lines.append(f"| {' | '.join([deed, *counts, lost])} |")
    return "\n".join(lines) + "\n"


def _lines(page: str) -> dict[str, list[str]]:
    """The cells of each line of the page's tables, by what is in the first."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" |")] for line in page.splitlines() if "|" in line
    ]
    return {first: cells for first, *cells in rows}


def since_the_last_loss(own: Sequence[Played]) -> Sequence[Played]:
    """Those that came after the last in which something was lost."""
    return own[max((n + 1 for n, one in enumerate(own) if one.faults), default=0) :]


def _most_points(failed: Sequence[Failed]) -> Mapping[tuple[str, str], Failed]:
    """For each deed and release the run of most points since the last loss, or the loss if nothing came
    after it."""
    found: dict[tuple[str, str], Failed] = {}
    for one in failed:
        best = found.get((one.deed, one.release))
        if best is None or one.faults or best.faults or one.points >= best.points:
            found[one.deed, one.release] = one
    return found


def put_into(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables in the places that are marked for them."""
    for name, table in tables.items():
        before, mark, after = page.partition(f"<!-- {name} -->\n")
        end = f"<!-- /{name} -->"
        page = before + mark + table + end + after.partition(end)[2]
    return page


def main() -> None:
    """Write the tables of the page anew."""
    from tests.chaos.deeds import DEEDS
    from tests.chaos.scenarios import SCENARIOS
    from tests.integration.worker.workshop import RELEASES

    record, page = read(), PAGE.read_text()
    tables = {
        "scenarios": table_of_scenarios(SCENARIOS, record.played, page),
        "points": table_of_points(DEEDS, RELEASES, record.failed, page),
    }
    PAGE.write_text(put_into(page, tables))


if __name__ == "__main__":
    main()
