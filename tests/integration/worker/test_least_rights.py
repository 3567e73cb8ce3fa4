"""A worker whose role has what docs/operations.md grants it, and not a right more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, make_url, text

from tests.integration.agents.fleet import execute, insert_job
from tests.integration.cli.conftest import Provisioner
from tests.integration.worker.workshop import Place, Workshop
from worker import rights
from worker.cli.doctor.servers import check_database
from worker.database import make_engine
from worker.database_errors import DatabaseNotNow

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Rights in the database")[1].split("\n## ")[0]
GRANTS = re.findall(r"```sql\n(.*?)```", SECTION, re.DOTALL)


def granted(block: str) -> dict[str, set[str]]:
    """The rights of a block of GRANTs, by table."""
    found: dict[str, set[str]] = {}
    for names, tables in re.findall(r"GRANT ([A-Z, ]+) ON (?!SCHEMA)([\w\s.,]+?) TO", block):
        for table in re.split(r",\s*", tables):
            found.setdefault(table.strip(), set()).update(names.split(", "))
    return found


def test_the_docs_grant_what_the_program_looks_for() -> None:
    assert granted(GRANTS[0]) == {table: set(names) for table, names in rights.WORKER.items()}
    assert granted(GRANTS[1]) == {"agents": {right for _, right in rights.KIND_RIGHTS.values()}}


class RestrictedWorker:
    """A worker with the role, a place for it to work on, and the owner's hand to take rights away."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.role = f"least_{make_url(workshop.database_url).database}"
        self._do("DROP ROLE IF EXISTS {role}")
        self._do("CREATE ROLE {role} LOGIN PASSWORD 'least-of-all'")
        for block in GRANTS:
            for statement in re.sub(r"--.*", "", block).split(";"):
                if statement.strip():
                    execute(workshop.engine, statement.replace("TO worker", f"TO {self.role}"))
        url = make_url(workshop.database_url).set(username=self.role, password="least-of-all")
        self.url = url.render_as_string(hide_password=False)
        self.worker = workshop.start_worker(
            DATABASE_URL=self.url, WORKER_CONCURRENCY="4", RETRY_TIMEOUT_S="60"
        )
        self.place: Place = workshop.place("2026.9.6", agents=4)

    def _do(self, statement: str) -> None:
        execute(self.workshop.engine, statement.format(role=self.role))

    def revoke(self, what: str) -> None:
        self._do(f"REVOKE {what} FROM {{role}}")

    def grant(self, what: str) -> None:
        self._do(f"GRANT {what} TO {{role}}")


@pytest.fixture(scope="module")
def restricted(open_workshop: Callable[[], Workshop]) -> Iterator[RestrictedWorker]:
    restricted = RestrictedWorker(open_workshop())
    yield restricted
    restricted.worker.stop()


def test_every_kind_of_job_is_served(restricted: RestrictedWorker) -> None:
    shop, fleet = restricted.workshop, restricted.place.fleet
    gateway, agent = fleet.gateway_id, fleet.agent_id
    asked: dict[str, dict[str, Any]] = {
        "provision_agent": {"agent_id": agent},
        "provision_gateway_main": {"gateway_id": gateway},
        "ensure_board_lead": {"board_id": fleet.board_id},
        "update_agent": {"agent_id": agent, "rotate_tokens": True},
        "sync_gateway": {"gateway_id": gateway, "rotate_tokens": True},
        "sync_heartbeats": {"gateway_id": gateway},
        "delete_agent": {"agent_id": fleet.agents[1]},
    }
    for kind, arguments in asked.items():
        row = shop.ended(shop.ask(kind, **arguments))
        assert (kind, row.status, row.error) == (kind, "succeeded", None)
        if kind == "ensure_board_lead":
            assert shop.ended(UUID(row.result["provision_job_id"])).status == "succeeded"
    assert "permission denied" not in restricted.worker.log()


def test_a_delete_that_may_not_delete_the_row_touches_nothing_and_names_the_right(
    restricted: RestrictedWorker,
) -> None:
    agent = restricted.place.fleet.agent_id
    restricted.revoke("DELETE ON agents")
    removals = restricted.place.count("agents.delete")
    row = restricted.workshop.ended(restricted.workshop.ask("delete_agent", agent_id=agent))
    restricted.grant("DELETE ON agents")
    assert row.status == "failed"
    assert row.error == (
        "Delete_agent cannot be served here, and nothing was touched: "
        f"the role {restricted.role} lacks DELETE on agents: GRANT DELETE ON agents TO {restricted.role}."
    )
    assert restricted.place.count("agents.delete") == removals
    assert restricted.place.record(agent).openclaw_id in restricted.place.simulator.agents()


@pytest.mark.parametrize(
    ("right", "table"),
    [("INSERT", "provisioner.jobs"), ("UPDATE", "agents"), ("SELECT", "board_memory")],
)
def test_without_a_right_that_all_need_jobs_wait_and_the_log_names_it(
    restricted: RestrictedWorker, right: str, table: str
) -> None:
    shop, fleet = restricted.workshop, restricted.place.fleet
    before = len(restricted.worker.log())
    restricted.revoke(f"{right} ON {table}")
    try:
        key = shop.ask("sync_gateway", gateway_id=fleet.gateway_id, rotate_tokens=True)
        provision = shop.send(fleet.agent_id)
        named = f"lacks {right} on {table}: GRANT {right} ON {table} TO {restricted.role}"
        shop.eventually(lambda: named in restricted.worker.log()[before:], within_s=20)
    finally:
        restricted.grant(f"{right} ON {table}")
    for job in (key, provision):
        ended = shop.ended(job)
        assert (ended.status, ended.error) == ("succeeded", None)


@pytest.fixture
def least(restricted: RestrictedWorker) -> Iterator[Engine]:
    engine = make_engine(restricted.url)
    yield engine
    engine.dispose()


def test_what_is_lacking_is_named_with_its_grant(restricted: RestrictedWorker, least: Engine) -> None:
    with least.connect() as connection:
        assert rights.missing_rights(connection, rights.WORKER) == []
        wanted = {"provisioner.jobs": ("DELETE", "SELECT"), "provisioner.nothing": ("SELECT",)}
        lacks = rights.missing_rights(connection, wanted)
        assert rights.sentence(connection, lacks) == (
            "there is no table provisioner.nothing: run `provisioner migrate`, and check DATABASE_URL; "
            f"the role {restricted.role} lacks DELETE on provisioner.jobs: "
            f"GRANT DELETE ON provisioner.jobs TO {restricted.role}"
        )


def test_doctor_names_what_workers_of_this_role_wait_for_and_what_they_refuse(
    restricted: RestrictedWorker, least: Engine
) -> None:
    def says() -> list[tuple[str, str, str]]:
        with least.connect() as connection:
            return [(each.check, each.status, each.says) for each in check_database(connection)]

    assert [found for found in says() if found[0] == "rights"] == []
    paused = "UPDATE provisioner.workers SET last_pause = 'it takes no writes', last_pause_at = now()"
    assert execute(restricted.workshop.engine, paused) == 1
    restricted.revoke("DELETE ON agents")
    restricted.revoke("SELECT ON board_memory")
    waits = says()
    restricted.grant("SELECT ON board_memory")
    refuses = says()
    restricted.grant("DELETE ON agents")
    assert waits == [
        (
            "rights",
            "fault",
            f"workers of this role wait: the role {restricted.role} lacks SELECT on board_memory:"
            f" GRANT SELECT ON board_memory TO {restricted.role}",
        )
    ]
    assert ("rights", "warning") in [found[:2] for found in refuses]
    assert any("lacks DELETE on agents" in found[2] for found in refuses)
    assert any(check == "database" and "waited for it" in text for check, _, text in refuses)


def test_a_delete_looks_at_all_that_it_will_need_before_it_touches_anything(
    restricted: RestrictedWorker,
) -> None:
    agent = restricted.place.fleet.agents[2]  # one that no other test wants: pytest may run it before them
    assert restricted.workshop.ended(restricted.workshop.send(agent)).status == "succeeded"
    restricted.revoke("DELETE ON provisioner.agent_credentials")
    before, removals = len(restricted.worker.log()), restricted.place.count("agents.delete")
    key = restricted.workshop.ask("delete_agent", agent_id=agent, delete_row=True)
    named = "lacks DELETE on provisioner.agent_credentials: GRANT DELETE ON provisioner.agent_credentials TO"
    restricted.workshop.eventually(lambda: named in restricted.worker.log()[before:], within_s=20)
    assert restricted.place.count("agents.delete") == removals
    restricted.grant("DELETE ON provisioner.agent_credentials")
    assert restricted.workshop.ended(key).status == "succeeded"
    assert restricted.place.count("agents.delete") == removals + 1


def test_a_right_on_some_columns_counts(restricted: RestrictedWorker, least: Engine) -> None:
    restricted.revoke("UPDATE ON agents")
    restricted.grant("UPDATE (status) ON agents")
    with least.connect() as connection:
        lacks = rights.missing_rights(connection, {"agents": ("UPDATE",)})
    restricted.revoke("UPDATE (status) ON agents")
    restricted.grant("UPDATE ON agents")
    assert lacks == []


def test_our_tables_are_all_on_the_list(least: Engine) -> None:
    with least.connect() as connection:
        tables = connection.execute(
            text("SELECT 'provisioner.' || tablename FROM pg_tables WHERE schemaname = 'provisioner'")
        ).scalars()
        assert set(tables) == {name for name in rights.WORKER if name.startswith("provisioner.")}


def test_an_agent_whose_row_may_be_hidden_is_not_deleted_as_one_without_a_row(
    restricted: RestrictedWorker,
) -> None:
    shop, place = restricted.workshop, restricted.place
    agent = place.fleet.agents[3]  # one that no other test wants
    assert shop.ended(shop.send(agent)).status == "succeeded"
    name = place.record(agent).openclaw_id
    assert shop.ended(shop.ask("update_agent", agent_id=agent, wake=False)).status == "succeeded"
    execute(shop.engine, "ALTER TABLE agents ENABLE ROW LEVEL SECURITY")
    try:
        row = shop.ended(shop.ask("delete_agent", agent_id=agent))
        assert row.status == "failed"
        assert f"nothing was touched: ALTER ROLE {restricted.role} BYPASSRLS." in row.error
        assert name in place.simulator.agents()
        execute(shop.engine, f"CREATE POLICY seen ON agents FOR SELECT TO {restricted.role} USING (true)")
        row = shop.ended(shop.ask("delete_agent", agent_id=agent))
        assert (row.status, "but its row stays: a trigger or row-level" in row.error) == ("failed", True)
    finally:
        execute(shop.engine, "DROP POLICY IF EXISTS seen ON agents")
        execute(shop.engine, "ALTER TABLE agents DISABLE ROW LEVEL SECURITY")
    assert shop.ended(shop.ask("delete_agent", agent_id=agent)).status == "succeeded"


SENDER = ("USAGE ON SCHEMA provisioner", "SELECT, INSERT ON provisioner.jobs")
READER = (
    "USAGE ON SCHEMA provisioner",
    "SELECT ON ALL TABLES IN SCHEMA provisioner",
    "SELECT ON gateways, boards, agents",
)


@pytest.fixture
def role(restricted: RestrictedWorker, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a role that has the rights of the parameter, and no others."""
    name = f"{restricted.role}_other"
    execute(restricted.workshop.engine, f"CREATE ROLE {name} LOGIN PASSWORD 'least-of-all'")
    for right in request.param:
        execute(restricted.workshop.engine, f"GRANT {right} TO {name}")
    url = make_url(restricted.workshop.database_url).set(username=name, password="least-of-all")
    yield url.render_as_string(hide_password=False)
    execute(restricted.workshop.engine, f"DROP OWNED BY {name}")
    execute(restricted.workshop.engine, f"DROP ROLE {name}")


@pytest.mark.parametrize("role", [SENDER], indirect=True, ids=["a sender"])
def test_a_service_inserts_its_jobs_with_the_rights_of_the_table(
    restricted: RestrictedWorker, role: str
) -> None:
    engine = make_engine(role, pool_size=1)
    key = insert_job(
        engine, restricted.place.fleet.agents[2], kind="update_agent", options='{"dry_run": true}'
    )
    assert restricted.workshop.ended(key).status in ("succeeded", "failed")
    with pytest.raises(DatabaseNotNow, match="permission denied"):
        execute(engine, "DELETE FROM provisioner.jobs")
    engine.dispose()


@pytest.mark.parametrize("role", [READER], indirect=True, ids=["a reader"])
def test_what_only_reads_does_so_with_the_rights_of_the_table(
    restricted: RestrictedWorker, role: str, tmp_path: Path
) -> None:
    key = restricted.workshop.send(restricted.place.fleet.agents[2], dry_run=True)
    restricted.workshop.ended(key)
    provisioner = Provisioner(role, tmp_path / "device.pem")
    for command in (["jobs"], ["job", str(key)], ["metrics"]):
        result = provisioner.run(*command)
        assert result.exit_code in (0, 1), result.output
        assert "permission denied" not in result.output
    assert str(key)[:6] in provisioner.run("jobs").stdout
