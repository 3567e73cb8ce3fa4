"""Migration 0007 finds out where the agents of v0.1.0 live."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Engine, text

from models import MissionControl
from models.migrate import alembic_config, migrate
from worker.database import make_engine

ORG, USER = UUID(int=1), UUID(int=2)
HERE, THERE, BOARD = UUID(int=10), UUID(int=11), UUID(int=20)


@pytest.fixture(params=["public", "mission_control"])
def before(request: pytest.FixtureRequest, empty_database_url: str) -> Iterator[Engine]:
    """A database of v0.1.0, whose Mission Control has the schema that its search_path names."""
    engine = make_engine(empty_database_url)
    schema = request.param
    with engine.begin() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        connection.execute(text(f'ALTER DATABASE "{name}" SET search_path TO {schema}'))
    engine.dispose()
    with engine.begin() as connection:
        MissionControl.metadata.create_all(connection)
        connection.execute(text("CREATE SCHEMA provisioner"))
        command.upgrade(alembic_config(connection), "0006")
        connection.execute(
            text(
                """
                INSERT INTO organizations (id, name, created_at, updated_at) VALUES (:org, 'o', now(), now());
                INSERT INTO gateways (id, organization_id, name, url, workspace_root, created_at, updated_at)
                VALUES (:here, :org, 'here', 'ws://h', '~/.openclaw/', now(), now()),
                       (:there, :org, 'there', 'ws://t', '', now(), now());
                INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, goal_confirmed,
                                    created_at, updated_at)
                VALUES (:board, :org, 'b', 'b', :here, 'goal', false, now(), now())
            """.replace(":org", f"'{ORG}'")
                .replace(":here", f"'{HERE}'")
                .replace(":there", f"'{THERE}'")
                .replace(":board", f"'{BOARD}'")
            )
        )
    yield engine
    engine.dispose()


def add(
    engine: Engine,
    number: int,
    key: str | None,
    *,
    lead: bool = False,
    board: UUID | None = BOARD,
    recorded: UUID | None = None,
    row: bool = True,
) -> UUID:
    """An agent, and that a job of ours succeeded for it on a gateway."""
    agent = UUID(int=number)
    with engine.begin() as connection:
        if row:
            connection.execute(
                text("""
                    INSERT INTO agents (id, board_id, gateway_id, name, status, openclaw_session_id,
                                        is_board_lead, created_at, updated_at)
                    VALUES (:id, :board, :gateway, 'A', 'online', :key, :lead,
                            timestamp '2026-01-01' + make_interval(secs => :number), now())
                """),
                {"id": agent, "board": board, "gateway": HERE, "key": key, "lead": lead, "number": number},
            )
        if recorded is not None:
            connection.execute(
                text(
                    "INSERT INTO provisioner.agent_credentials (agent_id, gateway_id, updated_at)"
                    " VALUES (:id, :gateway, now())"
                ),
                {"id": agent, "gateway": recorded},
            )
    return agent


def filled(engine: Engine) -> dict[UUID, tuple[UUID, str, str, str | None]]:
    migrate(engine)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM provisioner.agent_places WHERE until IS NULL"))
        return {
            row.agent_id: (row.gateway_id, row.openclaw_id, row.session_key, row.workspace) for row in rows
        }


def at(openclaw_id: str, gateway: UUID = HERE) -> tuple[UUID, str, str, str | None]:
    folder = openclaw_id.replace("mc-gateway-", "gateway-")
    root = f"~/.openclaw/workspace-{folder}" if gateway == HERE else None
    return gateway, openclaw_id, f"agent:{openclaw_id}:main", root


def test_an_agent_is_where_its_session_key_and_our_records_say(before: Engine) -> None:
    member = add(before, 100, f"agent:mc-{UUID(int=100)}:main", recorded=HERE)
    made_by_others = add(before, 101, f"agent:mc-{UUID(int=101)}:main")
    promoted = add(before, 102, f"agent:mc-{UUID(int=102)}:main", lead=True, recorded=HERE)
    moved = add(before, 103, f"agent:mc-{UUID(int=103)}:main", recorded=THERE)
    main = add(before, 104, f"agent:gateway-{HERE}:main", board=None)
    keyless = add(before, 105, None, recorded=HERE)
    never = add(before, 106, None)
    strange = add(before, 107, f"agent:mc-{UUID(int=100)}:main")
    found = filled(before)
    assert found == {
        member: at(f"mc-{member}"),
        made_by_others: at(f"mc-{made_by_others}"),
        promoted: at(f"mc-{promoted}"),
        moved: at(f"mc-{moved}", THERE),
        main: at(f"mc-gateway-{HERE}"),
        keyless: at(f"mc-{keyless}"),
    }
    assert not {never, strange} & found.keys()


def test_of_two_that_claim_one_id_the_present_lead_has_it(before: Engine) -> None:
    key = f"agent:lead-{BOARD}:main"
    add(before, 100, key, recorded=HERE)  # was the lead, and is none any more
    unkeyed = add(before, 101, key, lead=True)
    lead = add(before, 102, key, lead=True, recorded=HERE)
    found = filled(before)
    assert found[lead] == at(f"lead-{BOARD}")
    assert unkeyed not in found
    assert len(found) == 1


def test_an_agent_whose_row_was_deleted_behind_our_backs_is_found(before: Engine) -> None:
    agent = add(before, 100, None, recorded=HERE, row=False)
    with before.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO provisioner.jobs (id, kind, agent_id, gateway_id)
                VALUES (CAST(:job AS uuid), 'provision_agent', :agent, :gateway);
            """),
            {"job": UUID(int=1), "agent": agent, "gateway": HERE},
        )
        connection.execute(
            text(
                "INSERT INTO provisioner.job_agents (job_id, agent_id, openclaw_id)"
                " VALUES (:job, :agent, :name)"
            ),
            {"job": UUID(int=1), "agent": agent, "name": f"lead-{BOARD}"},
        )
    assert filled(before) == {agent: at(f"lead-{BOARD}")}


@pytest.mark.parametrize("column", ["is_board_lead", "openclaw_session_id"])
def test_a_mission_control_that_lacks_a_column_is_no_obstacle(before: Engine, column: str) -> None:
    with before.begin() as connection:
        connection.execute(text(f"ALTER TABLE agents DROP COLUMN {column}"))
    assert filled(before) == {}
