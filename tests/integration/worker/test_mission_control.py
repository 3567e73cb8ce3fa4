"""Jobs of every kind beside Mission Control's own tables: rows change where they must, definitions never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text

from tests.integration.agents.fleet import agent_row, execute, one
from tests.integration.mission_control import MORE_OF_MISSION_CONTROL, definitions
from tests.integration.worker.workshop import Place, Workshop


@dataclass(frozen=True)
class MissionControlRows:
    """What came of a gateway's life in Mission Control's database."""

    before: str
    after: str
    jobs: dict[str, Row[Any]]
    workshop: Workshop
    place: Place
    kept: UUID
    deleted: UUID


def _others(workshop: Workshop) -> tuple[str, ...]:
    with workshop.engine.connect() as connection:
        return tuple(connection.execute(text(_OTHERS)).scalars())


@pytest.fixture(scope="module")
def beside(open_workshop: Callable[[], Workshop]) -> MissionControlRows:
    """Two agents, one of them with a history; a lead and a main agent are made, and both agents deleted."""
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=2)
    kept, deleted = place.fleet.agents
    with workshop.engine.begin() as connection:
        connection.execute(text(MORE_OF_MISSION_CONTROL))
    execute(workshop.engine, _EVENT, id=uuid4(), agent_id=kept)
    execute(workshop.engine, _TASK, id=uuid4(), board_id=place.fleet.board_id, agent_id=kept)
    before, rows = definitions(workshop.database_url, "public"), _others(workshop)
    workshop.start_worker()
    gateway, board = place.fleet.gateway_id, place.fleet.board_id
    jobs: dict[str, Row[Any]] = {}

    def run(name: str, kind: str, **arguments: Any) -> None:
        jobs[name] = workshop.ended(workshop.ask(kind, **arguments))

    run("provision", "provision_agent", agent_id=kept)
    run("provision another", "provision_agent", agent_id=deleted)
    run("lead", "ensure_board_lead", board_id=board)
    jobs["provision the lead"] = workshop.ended(UUID(jobs["lead"].result["provision_job_id"]))
    run("main", "provision_gateway_main", gateway_id=gateway)
    run("update", "update_agent", agent_id=kept, rotate_tokens=True)
    run("heartbeats", "sync_heartbeats", gateway_id=gateway)
    run("sync", "sync_gateway", gateway_id=gateway)
    run("delete", "delete_agent", agent_id=deleted)
    run("delete one with a history", "delete_agent", agent_id=kept)
    assert _others(workshop) == rows
    after = definitions(workshop.database_url, "public")
    return MissionControlRows(before, after, jobs, workshop, place, kept, deleted)


def test_its_definitions_are_the_same_before_and_after(beside: MissionControlRows) -> None:
    assert "lifecycle_generation integer NOT NULL" in beside.before
    assert "REFERENCES public.agents(id)" in beside.before
    assert beside.after == beside.before


def test_jobs_of_every_kind_succeed_beside_its_tables(beside: MissionControlRows) -> None:
    ended = {name: (job.status, job.error) for name, job in beside.jobs.items()}
    del ended["delete one with a history"]
    assert set(ended.values()) == {("succeeded", None)}
    assert beside.jobs["sync"].result["agents_updated"] == 3
    assert beside.jobs["sync"].result["main_updated"] is True


def test_a_lead_and_a_main_agent_get_the_zero_of_a_column_that_we_do_not_know(
    beside: MissionControlRows,
) -> None:
    assert beside.jobs["lead"].result["created"] is True
    made = (beside.jobs["lead"].result["agent_id"], beside.jobs["main"].result["agent_id"])
    for agent_id in made:
        row = agent_row(beside.workshop.engine, UUID(str(agent_id)))
        assert (row.lifecycle_generation, row.status) == (0, "online")
    assert "a zero is put into: lifecycle_generation" in beside.workshop.logs()


def test_an_agent_with_a_history_is_deleted_once_that_is_gone(beside: MissionControlRows) -> None:
    engine = beside.workshop.engine
    assert one(engine, "SELECT count(*) FROM agents WHERE id = :id", id=beside.deleted)[0] == 0
    refused = beside.jobs["delete one with a history"]
    assert refused.status == "failed"
    assert "_agent_id_fkey" in refused.error
    execute(engine, "DELETE FROM activity_events")
    execute(engine, "UPDATE tasks SET assigned_agent_id = NULL")
    again = beside.workshop.ended(beside.workshop.ask("delete_agent", agent_id=beside.kept))
    assert (again.status, again.error) == ("succeeded", None)
    assert one(engine, "SELECT count(*) FROM agents WHERE id = :id", id=beside.kept)[0] == 0


_EVENT = "INSERT INTO activity_events (id, agent_id, message) VALUES (:id, :agent_id, 'said hello')"
_TASK = """
    INSERT INTO tasks (id, board_id, title, assigned_agent_id) VALUES (:id, :board_id, 'Ship', :agent_id)
"""
_OTHERS = """
    SELECT 'event ' || to_jsonb(e)::text FROM public.activity_events e UNION ALL
    SELECT 'task ' || to_jsonb(t)::text FROM public.tasks t UNION ALL
    SELECT 'board ' || to_jsonb(b)::text FROM public.boards b UNION ALL
    SELECT 'gateway ' || to_jsonb(g)::text FROM public.gateways g UNION ALL
    SELECT 'user ' || to_jsonb(u)::text FROM public.users u UNION ALL
    SELECT 'revision ' || to_jsonb(v)::text FROM public.alembic_version v
    ORDER BY 1
"""
