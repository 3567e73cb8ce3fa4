"""`provisioner metrics`: what Prometheus is told, on rows of every kind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from tests.fleet import Fleet, make_fleet
from tests.integration.cli.conftest import Provisioner
from worker.cli.metric_queries import QUERIES
from worker.gateway.error_mapping import from_response
from worker.gateway.error_payload import CallContext
from worker.jobs.states import JOB_STATUSES, WAITS, ReasonCode, RolloutState
from worker.lab.servers.ports import free_port
from worker.sync.result import ending

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8"))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(page: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def refusal(message: str, **more: Any) -> str:
    """The reason of a row whose gateway said that."""
    error = {"code": "UNAVAILABLE", "message": message, "retryable": True, **more}
    return str(from_response(CallContext.of("ws://g:1", "agents.files.set", {}), error))


class StoredRows:
    """Rows as the rows keeps them, of any age."""

    def __init__(self, engine: Engine, fleet: Fleet) -> None:
        self._engine = engine
        self.fleet = fleet

    def run(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), values)

    def job(self, kind: str, status: str, *, asked: str = "0", took: str | None = None, **more: Any) -> UUID:
        """A job asked for ``asked`` ago that ended after ``took``."""
        key = uuid4()
        self.run(
            "INSERT INTO provisioner.jobs (id, kind, status, gateway_id, created_at, started_at, finished_at,"
            " result) VALUES (:id, :kind, :status, :gateway, now() - CAST(:asked AS interval),"
            " now() - CAST(:asked AS interval) + interval '2 s',"
            " now() - CAST(:asked AS interval) + CAST(:took AS interval), CAST(:result AS jsonb))",
            id=key,
            kind=kind,
            status=status,
            gateway=more.get("gateway", self.fleet.gateway_id),
            asked=asked,
            took=took,
            result=json.dumps(more["result"]) if "result" in more else None,
        )
        return key

    def parked(self, reason: str | None, phase: str = "files", code: str | None = None) -> None:
        """An agent of an open job that waits for its next turn; without ``code`` as older workers park it."""
        job = self.job("provision_agent", "running", gateway=self.fleet.gateway_id)
        self.run(
            "INSERT INTO provisioner.job_agents (job_id, agent_id, status, phase, reason, reason_code,"
            " next_attempt_at) VALUES (:job, :agent, 'running', :phase, :reason, :code,"
            " now() + interval '1 min')",
            job=job,
            agent=uuid4(),
            phase=phase,
            reason=reason,
            code=code,
        )


@pytest.fixture
def rows(engine: Engine) -> StoredRows:
    fleet = make_fleet(engine, url="ws://127.0.0.1:9", token="t0ken", workspace_root="~/.openclaw")
    return StoredRows(engine, fleet)


@pytest.fixture
def figures(provisioner: Provisioner, rows: StoredRows) -> Callable[..., float | None]:
    """What is printed now for one series."""

    def read(name: str, **labels: str) -> float | None:
        ran = provisioner.run("metrics")
        assert ran.exit_code == 0, ran.output
        return samples(ran.stdout).get((name, tuple(sorted(labels.items()))))

    return read


def test_jobs_are_counted_by_kind_and_status_for_a_day(
    rows: StoredRows, figures: Callable[..., float | None]
) -> None:
    rows.job("provision_agent", "failed", asked="2 h", took="1 min")
    rows.job("provision_agent", "failed", asked="3 days", took="1 min")
    rows.job("provision_agent", "running", asked="3 days")
    read = {
        status: figures("provisioner_jobs", kind="provision_agent", status=status)
        for status in ("failed", "running", "cancelled")
    }
    assert read == {"failed": 1, "running": 1, "cancelled": 0}


def test_the_oldest_waiting_job_has_its_age(rows: StoredRows, figures: Callable[..., float | None]) -> None:
    rows.job("update_agent", "queued", asked="90 s")
    rows.job("update_agent", "queued", asked="10 s")
    age = figures("provisioner_queue_oldest_seconds", kind="update_agent")
    assert age == pytest.approx(90, abs=30)
    assert figures("provisioner_queue_oldest_seconds", kind="sync_gateway") == 0


def test_durations_are_those_of_the_last_day(rows: StoredRows, figures: Callable[..., float | None]) -> None:
    for seconds in (5, 10, 300):
        rows.job("sync_gateway", "succeeded", asked="1 h", took=f"{seconds} s")
    rows.job("sync_gateway", "succeeded", asked="3 days", took="1000 s")
    took = {
        quantile: figures("provisioner_job_duration_seconds", kind="sync_gateway", quantile=quantile)
        for quantile in ("0.5", "1")
    }
    assert took == {"0.5": 10, "1": 300}
    assert figures("provisioner_job_wait_seconds", kind="sync_gateway", quantile="0.5") == 2


@pytest.mark.parametrize(
    ("reason", "phase", "told"),
    [
        (None, "roster", "roster_writer"),
        (None, "leaving", "roster_writer"),
        ("waiting for the roster writer to remove the agent where it was before", "intent", "roster_writer"),
        ("waiting until the other agents have their files", "files", "other_agents"),
        ("waiting for another job on this agent", "files", "other_job"),
        ("waiting for the gateway to restart", "wake", "gateway_restart"),
        ("this worker is stopping: no answer", "files", "worker_stopping"),
        (
            refusal("rate limit exceeded", retryAfterMs=40_000, details={"limit": "3 per 60s"}),
            "files",
            "rate_limit",
        ),
        (refusal("rate limit exceeded for x; retry after 4s"), "files", "rate_limit"),
        (refusal("unauthorized: too many failed authentication attempts"), "files", "rate_limit"),
        (refusal("The server is busy. Please try again in a moment."), "files", "gateway_error"),
    ],
)
def test_a_row_that_an_older_worker_parked_is_counted_by_its_sentence(
    rows: StoredRows, figures: Callable[..., float | None], reason: str | None, phase: str, told: str
) -> None:
    rows.parked(reason, phase)
    assert figures("provisioner_parked_agents", reason=told) == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("waiting_for_roster", "roster_writer"),
        ("waiting_for_agent", "other_job"),
        ("waiting_for_other_agents", "other_agents"),
        ("being_woken", "being_woken"),
        ("waiting_for_restart", "gateway_restart"),
        ("waiting_for_window", "sync_window"),
        ("worker_stopping", "worker_stopping"),
        ("waiting_for_database", "database"),
        ("waiting_for_gateway", "gateway_down"),
        ("rate_limited", "rate_limit"),
        ("transient_error", "gateway_error"),
    ],
)
def test_whoever_waits_is_counted_by_the_code(
    rows: StoredRows, figures: Callable[..., float | None], code: str, told: str
) -> None:
    rows.parked("waiting for another job on this agent", code=code)
    assert figures("provisioner_parked_agents", reason=told) == 1
    assert code in WAITS


def test_every_wait_is_a_reason_that_is_told() -> None:
    tested = next(m for m in test_whoever_waits_is_counted_by_the_code.pytestmark)
    of_roll_outs = {ReasonCode.WAITING_FOR_RING, ReasonCode.PAUSED}  # their own rows; no agent's has these
    assert {code for code, _ in tested.args[1]} == WAITS - of_roll_outs


def test_who_waits_for_a_gateway_that_is_away_is_counted_as_that(
    rows: StoredRows, figures: Callable[..., float | None]
) -> None:
    rows.run(
        "INSERT INTO provisioner.gateway_states (gateway_id, down_since, rate_limited_until,"
        " refused_token_fingerprint) VALUES (:id, now() - interval '5 min', now() + interval '40 s', 'f')",
        id=rows.fleet.gateway_id,
    )
    rows.parked("the gateway at ws://127.0.0.1:9 cannot be reached: refused")
    gateway = {"gateway": "workshop", "gateway_id": str(rows.fleet.gateway_id)}
    assert figures("provisioner_parked_agents", reason="gateway_down") == 1
    assert figures("provisioner_parked_agents", reason="gateway_error") == 0
    assert figures("provisioner_gateway_down_seconds", **gateway) == pytest.approx(300, abs=60)
    assert figures("provisioner_gateway_rate_limited_seconds", **gateway) == pytest.approx(30, abs=15)
    assert figures("provisioner_gateway_token_refused", **gateway) == 1


def test_open_changes_of_the_roster_are_counted(
    rows: StoredRows, figures: Callable[..., float | None]
) -> None:
    for applied in (None, "0 s"):
        rows.run(
            "INSERT INTO provisioner.roster_intents (gateway_id, agent_id, job_id, change, openclaw_id,"
            " created_at, applied_at) VALUES (:gateway, :agent, :job, 'reconcile', 'mc-1',"
            " now() - interval '1 min', now() - CAST(:applied AS interval))",
            gateway=rows.fleet.gateway_id,
            agent=uuid4(),
            job=uuid4(),
            applied=applied,
        )
    gateway = {"gateway": "workshop", "gateway_id": str(rows.fleet.gateway_id)}
    assert figures("provisioner_roster_intents_open", **gateway) == 1
    assert figures("provisioner_roster_intent_oldest_seconds", **gateway) == pytest.approx(60, abs=30)


def test_drift_is_that_of_the_newest_sync(rows: StoredRows, figures: Callable[..., float | None]) -> None:
    gateway = {"gateway": "workshop", "gateway_id": str(rows.fleet.gateway_id)}
    assert figures("provisioner_drift_files", **gateway) is None
    found = {"files_written": 3, "roster_changes": 1, "dry_run": True, "errors": [{}, {}]}
    rows.job("sync_gateway", "partial", asked="2 h", took="5 s", result=found)
    assert figures("provisioner_drift_files", **gateway) == 3
    assert figures("provisioner_drift_roster_entries", **gateway) == 1
    assert figures("provisioner_drift_unmended", **gateway) == 1
    assert figures("provisioner_sync_errors", **gateway) == 2
    rows.job("sync_gateway", "succeeded", asked="1 h", took="5 s", result={**found, "dry_run": False})
    assert figures("provisioner_drift_unmended", **gateway) == 0
    assert figures("provisioner_sync_age_seconds", **gateway) == pytest.approx(3595, abs=60)


def test_rings_are_no_sync_of_the_gateway_but_a_roll_out_that_reached_all_is(
    rows: StoredRows, figures: Callable[..., float | None]
) -> None:
    gateway = {"gateway": "workshop", "gateway_id": str(rows.fleet.gateway_id)}
    found = {"files_written": 50, "roster_changes": 4, "errors": [], "dry_run": True}
    rows.job("sync_gateway", "succeeded", asked="5 h", took="1 min", result=found)
    roll_out = rows.job("roll_out", "running", asked="2 h", gateway=None)
    rows.run(
        "INSERT INTO provisioner.roll_outs (job_id, gateways) VALUES (:id, ARRAY[CAST(:gateway AS uuid)])",
        id=roll_out,
        gateway=rows.fleet.gateway_id,
    )
    ring = {**found, "dry_run": False}
    children = [
        rows.job("sync_gateway", "succeeded", asked="2 h", took="1 min", result={**of, **counts})
        for of, counts in [(found, {}), (ring, {"files_written": 3}), (ring, {"roster_changes": 1})]
    ]
    rows.run("UPDATE provisioner.jobs SET parent_job_id = :id WHERE id = ANY(:of)", id=roll_out, of=children)
    rows.run(
        "INSERT INTO provisioner.roll_out_agents (job_id, agent_id, gateway_id, ring, change, state) SELECT"
        " :id, gen_random_uuid(), :gateway, 1, 'c', unnest(ARRAY['healthy', 'failed', 'unknown', 'gone'])",
        id=roll_out,
        gateway=rows.fleet.gateway_id,
    )

    def read() -> list[float | None]:
        names = ("drift_files", "drift_roster_entries", "drift_unmended", "sync_errors", "sync_age_seconds")
        return [figures(f"provisioner_{name}", **gateway) for name in names]

    end = "UPDATE provisioner.jobs SET status = :status, finished_at = now() - interval '1 h' WHERE id = :id"
    of_the_dry_run = [50, 4, 1, 0, pytest.approx(5 * 3600 - 60, abs=60)]
    assert read() == of_the_dry_run
    rows.run(end, status="failed", id=roll_out)
    assert read() == of_the_dry_run
    rows.run(end, status="partial", id=roll_out)
    assert read() == [53, 5, 0, 2, pytest.approx(3600, abs=60)]
    rows.run("UPDATE provisioner.jobs SET board_id = gen_random_uuid() WHERE id = :id", id=roll_out)
    assert read() == of_the_dry_run


def test_the_fields_of_a_sync_that_drift_is_read_from_are_there() -> None:
    result = ending(uuid4(), "g", {"dry_run": True}, []).result
    assert {"files_written", "roster_changes", "errors", "dry_run"} <= set(result)


@pytest.mark.parametrize(
    "said",
    [
        "waiting for another job on this agent",
        "waiting for the roster writer",
        "waiting until the other agents have their files",
        "waiting for the gateway to restart",
        "this worker is stopping: ",
    ],
)
def test_the_reasons_that_are_told_apart_are_those_that_rows_hold(said: str) -> None:
    rooms = [ROOT / "worker" / room for room in ("agents", "roster", "sync", "jobs")]
    sources = [file for room in rooms for file in room.rglob("*.py") if file.name != "codes.py"]
    assert any(said in file.read_text(encoding="utf-8") for file in sources)


def test_lost_claims_and_overdue_schedules(rows: StoredRows, figures: Callable[..., float | None]) -> None:
    assert figures("provisioner_schedule_overdue_seconds") == 0
    job = rows.job("provision_agent", "running")
    rows.run(
        "INSERT INTO provisioner.job_agents (job_id, agent_id, status, attempts, crashes, tries, started_at)"
        " VALUES (:job, :agent, 'running', 2, 1, 7, now())",
        job=job,
        agent=uuid4(),
    )
    rows.run(
        "INSERT INTO provisioner.sync_schedules (id, gateway_id, every, next_run_at)"
        " VALUES (:id, :gateway, interval '1 h', now() - interval '10 min')",
        id=uuid4(),
        gateway=rows.fleet.gateway_id,
    )
    assert figures("provisioner_lost_claims") == 2
    assert figures("provisioner_schedule_overdue_seconds") == pytest.approx(600, abs=60)


def test_the_figures_as_json(provisioner: Provisioner, rows: StoredRows) -> None:
    printed = provisioner.json("metrics")
    assert {"name": "provisioner_up", "labels": {}, "value": 1.0} in printed
    assert len(printed) == len(samples(provisioner.run("metrics").stdout))


def test_a_database_without_tables_is_named(empty: Provisioner) -> None:
    assert "provisioner migrate" in empty.refused("metrics", code=1)


@pytest.mark.parametrize("given", ["9108", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_cannot_be_right_is_refused(provisioner: Provisioner, given: str) -> None:
    assert "HOST:PORT" in provisioner.refused("metrics", "--listen", given)


def test_a_port_that_is_taken_is_named(provisioner: Provisioner, redis_url: str) -> None:
    taken = redis_url.rpartition("@")[2].partition("/")[0]
    assert f"Nothing can listen at {taken}" in provisioner.refused("metrics", "--listen", taken)


@pytest.fixture
def served(provisioner: Provisioner, rows: StoredRows) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    url = f"127.0.0.1:{free_port()}"
    environment = {name: value for name, value in provisioner.env.items() if value is not None}
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.cli.app", "metrics", "--listen", url],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert f"http://{url}/metrics" in process.stderr.readline()
    yield f"http://{url}/metrics", process
    process.kill()
    process.wait()
    process.stderr.close()


def read(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return samples(answer.read().decode())


def test_they_are_served_fresh_until_it_is_told_to_stop(
    served: tuple[str, subprocess.Popen[str]], rows: StoredRows
) -> None:
    url, process = served
    series = ("provisioner_jobs", (("kind", "delete_agent"), ("status", "queued")))
    assert read(url)[series] == 0
    rows.job("delete_agent", "queued")
    assert read(url)[series] == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_database_that_goes_away_is_a_figure_too(
    served: tuple[str, subprocess.Popen[str]], rows: StoredRows
) -> None:
    url, _ = served
    assert read(url)["provisioner_up", ()] == 1
    rows.run("ALTER TABLE gateways RENAME TO hidden")
    try:
        assert read(url) == {("provisioner_up", ()): 0}
    finally:
        rows.run("ALTER TABLE hidden RENAME TO gateways")
    assert read(url)["provisioner_up", ()] == 1


def test_the_dashboard_shows_what_is_printed_and_nothing_else(
    provisioner: Provisioner, rows: StoredRows
) -> None:
    printed = {family.name for family in text_string_to_metric_families(provisioner.run("metrics").stdout)}
    asked = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for name in re.findall(r"provisioner_\w+", target["expr"])
    }
    assert asked == printed


def test_the_dashboard_is_for_whatever_data_source_it_is_given() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert DASHBOARD["schemaVersion"] >= 38  # Grafana 10
    assert DASHBOARD["id"] is None
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_the_panels_of_the_dashboard_neither_overlap_nor_leave_holes() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert taken.isdisjoint(cells)
        taken |= cells
    assert taken == {(x, y) for x in range(24) for y in range(1 + max(y for _, y in taken))}


def test_each_line_of_the_dashboard_has_the_unit_of_its_metric_and_is_of_the_chosen_gateways() -> None:
    of_gateways = {
        name for query in QUERIES if "gateway" in query.labels for name, _ in query.gauges.values()
    }
    for panel in [each for each in DASHBOARD["panels"] if each["type"] == "timeseries"]:
        for target in panel["targets"]:
            [name] = re.findall(r"provisioner_\w+", target["expr"])
            assert _unit_of(panel, target["refId"]) == UNITS.get(name.rpartition("_")[2], "short"), name
            if name in of_gateways:
                assert target["expr"] == f'{name}{{gateway=~"$gateway"}}'


def test_each_status_of_a_job_and_state_of_an_agent_has_its_own_colour_on_the_dashboard() -> None:
    for title, states in (("Jobs by status", JOB_STATUSES), ("Roll-outs", tuple(RolloutState))):
        [panel] = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
        colours = {
            override["matcher"]["options"]: each["value"]["fixedColor"]
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "color"
        }
        assert set(states) <= set(colours)
        assert len(set(colours.values())) == len(colours)
        assert colours["failed"] == "red"


def test_what_the_dashboard_stacks_is_areas_for_a_line_of_zeros_would_hide_what_it_lies_on() -> None:
    styles = [panel["fieldConfig"]["defaults"].get("custom", {}) for panel in DASHBOARD["panels"]]
    stacked = [style for style in styles if style.get("stacking", {}).get("mode") == "normal"]
    assert len(stacked) == 4
    assert {(style["lineWidth"], style["fillOpacity"] > 50) for style in stacked} == {(0, True)}


UNITS = {"seconds": "s", "bytes": "bytes"}


def _unit_of(panel: dict[str, Any], ref_id: str) -> str:
    """The unit of what a panel draws for one of its targets."""
    units = [str(panel["fieldConfig"]["defaults"]["unit"])]
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": "byFrameRefID", "options": ref_id}:
            units += [each["value"] for each in override["properties"] if each["id"] == "unit"]
    return units[-1]


def test_the_alerts_that_the_operations_page_names_are_about_what_is_printed() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## What to alert on")[2]
    alerts = re.findall(r"^\| `([^`]+)`", page, flags=re.MULTILINE)
    asked = {name for alert in alerts for name in re.findall(r"provisioner_\w+", alert)}
    printed = {name for query in QUERIES for name, _ in query.gauges.values()}
    assert len(alerts) == len(asked) > 10
    assert asked <= printed | {"provisioner_up"}
