"""docs/reliability.md says of each scenario and each deed what came of it."""

from __future__ import annotations

from tests.chaos.deeds import DEEDS
from tests.chaos.record import PAGE, Failed, Played, put_into, table_of_points, table_of_scenarios
from tests.chaos.scenario import Scenario
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import Stage


def unplug(_: Stage) -> None:
    """The plug is pulled.

    Nobody knows by whom.
    """


def played(agents: int, broken: int, *faults: str, name: str = "power") -> Played:
    return Played(name, "1.0", agents, 1.5, broken, list(faults))


def test_a_scenario_counts_from_its_last_loss_on() -> None:
    scenario = Scenario("power", unplug, releases=("a", "b"))
    others = [played(99, 99, name="water")]

    def line(*own: Played) -> str:
        return table_of_scenarios([scenario], [*others, *own]).splitlines()[-1]

    assert line() == "| power | The plug is pulled. | not yet |  |  |  |"
    good = [played(12, 1_000), played(100, 200)]
    assert line(*good) == "| power | The plug is pulled. | 2 | 200 | 1,200 | nothing |"
    assert line(played(300, 9, "a file"), *good) == line(*good)
    assert "| 0 |" in line(*good, played(12, 9, "a file"))
    assert "something at last" in line(*good, played(12, 9, "a file"))


def test_a_deed_shows_its_largest_run_since_a_loss() -> None:
    runs = [
        Failed("delete", "a", 400, 400, 9.0, 3),
        Failed("delete", "a", 300, 400, 9.0, 0),
        Failed("delete", "a", 8, 400, 9.0, 0),
        Failed("delete", "b", 1_500, 1_500, 9.0, 0),
        Failed("sync", "b", 8, 500, 9.0, 2),
    ]
    assert table_of_points(["delete", "sync"], ["a", "b"], runs).splitlines()[-2:] == [
        "| delete | 300 of 400 | 1,500 of 1,500 | nothing |",
        "| sync | not yet | 8 of 500 | at 2 |",
    ]


def test_what_is_not_in_the_record_keeps_its_figures() -> None:
    scenarios = [Scenario("power", unplug), Scenario("water", unplug)]
    before = table_of_scenarios(scenarios, [played(12, 7), played(12, 8, name="water")])
    after = table_of_scenarios(scenarios, [played(12, 9)], before)
    assert after.splitlines()[-2:] == [
        "| power | The plug is pulled. | 1 | 24 | 9 | nothing |",
        "| water | The plug is pulled. | 1 | 24 | 8 | nothing |",
    ]
    runs = [Failed("delete", release, 9, 9, 9.0, 0) for release in ("a", "b")]
    points = table_of_points(["delete"], ["a", "b"], runs)
    assert table_of_points(["delete"], ["a", "b"], [], points) == points
    again = table_of_points(["delete"], ["a", "b"], [Failed("delete", "b", 9, 9, 9.0, 4)], points)
    assert again.splitlines()[-1] == "| delete | 9 of 9 | 9 of 9 | at 4 |"


def test_a_table_takes_the_place_that_is_marked_for_it() -> None:
    page = "a\n<!-- t -->\n| old |\n<!-- /t -->\nb\n"
    new = put_into(page, {"t": "| new |\n"})
    assert new == "a\n<!-- t -->\n| new |\n<!-- /t -->\nb\n"
    assert put_into(new, {"t": "| new |\n"}) == new


def test_the_page_has_a_line_for_each_scenario_and_each_deed() -> None:
    page = PAGE.read_text()
    missing = [name for name in (*(each.name for each in SCENARIOS), *DEEDS) if f"\n| {name} | " not in page]
    assert not missing, "make chaos-tables adds them"
