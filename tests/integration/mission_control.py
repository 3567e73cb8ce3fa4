"""Mission Control's real database: what it has beyond what we map, and its schemas as pg_dump writes them."""

from __future__ import annotations

import re
import subprocess

from sqlalchemy import make_url

from worker.lab.servers.binaries import find_postgres

MORE_OF_MISSION_CONTROL = """
    SET LOCAL search_path TO public;
    CREATE TABLE board_groups (id uuid PRIMARY KEY, name varchar NOT NULL);
    ALTER TABLE boards ADD COLUMN board_group_id uuid REFERENCES board_groups (id);
    ALTER TABLE agents ADD COLUMN lifecycle_generation integer NOT NULL DEFAULT 0;
    ALTER TABLE agents ALTER COLUMN lifecycle_generation DROP DEFAULT;
    ALTER TABLE gateways ADD COLUMN allow_insecure_tls boolean NOT NULL DEFAULT false;
    CREATE TABLE activity_events (id uuid PRIMARY KEY, agent_id uuid REFERENCES agents (id), message varchar);
    CREATE TABLE tasks (
        id uuid PRIMARY KEY, board_id uuid REFERENCES boards (id), title varchar NOT NULL,
        assigned_agent_id uuid REFERENCES agents (id)
    );
    CREATE TABLE jobs (id serial PRIMARY KEY, what varchar);
    CREATE INDEX ix_agents_status ON agents (status);
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('somebody_elses');
    CREATE TYPE mood AS ENUM ('calm', 'busy');
    CREATE VIEW busy_agents AS SELECT id, name FROM agents WHERE status = 'busy';
"""
"""Adds what Mission Control's newer versions have beyond the tables and columns that we map."""


def definitions(database_url: str, schema: str) -> str:
    """The definitions of one schema, as ``pg_dump -s`` writes them."""
    url = make_url(database_url)
    program = find_postgres().path.with_name("pg_dump")
    place = ["-h", str(url.host), "-p", str(url.port), "-U", str(url.username), str(url.database)]
    done = subprocess.run(
        [str(program), "-s", "-n", schema, *place],
        env={"PGPASSWORD": str(url.password), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    # pg_dump 18 encloses its output in lines with a random key.
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)
