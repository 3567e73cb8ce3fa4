"""provision with a worker process at the other end of the database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.integration.cli.conftest import Provisioner
from worker.lab.simulator import Simulator


def test_an_agent_comes_to_life_while_the_operator_waits(staffed: Provisioner, simulator: Simulator) -> None:
    result = staffed.run("provision", "Ada")
    assert result.exit_code == 0, result.output
    assert "AGENTS.md" in result.stdout
    assert "succeeded" in result.stdout
    (agent,) = [line for line in staffed.json("agent", "list") if line["name"] == "Ada"]
    assert (agent["status"], agent["last_job_status"]) == ("online", "succeeded")
    assert f"mc-{agent['id']}" in simulator.agents()
    again = staffed.json("provision", "Ada", "--no-wake")
    assert (again["result"]["token"], again["result"]["woken"]) == ("reused", False)
    assert simulator.config_writes == 1


def test_a_refused_token_and_a_gateway_that_is_away_fail_with_a_sentence(staffed: Provisioner) -> None:
    refused = staffed.run("provision", "Bea")
    away = staffed.run("provision", "Cid")
    assert (refused.exit_code, away.exit_code) == (1, 1)
    assert "does not accept our token" in refused.stdout
    assert 'provisioner doctor "gateway of Bea"' in refused.stdout
    assert "unreachable for 3 seconds" in " ".join(away.stdout.split())
    assert [gateway["state"] for gateway in staffed.json("gateway", "list")][1:] == ["token refused", "down"]
    assert all("wr0ng" not in text for text in (refused.output, away.output))


def test_without_a_worker_the_wait_says_so_and_ctrl_c_ends_it_but_not_the_job(fleet: Provisioner) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "worker.cli.app", "provision", "Ada"],
        env={**os.environ, **{key: value for key, value in fleet.env.items() if value is not None}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    assert "waiting for a worker" in waiting.stdout.readline()
    assert "No worker has picked this up" in waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    (job,) = fleet.json("jobs")
    assert waiting.returncode == 130
    assert f"provisioner job {job['id'][:8]} --watch" in said
    assert job["status"] == "queued"
