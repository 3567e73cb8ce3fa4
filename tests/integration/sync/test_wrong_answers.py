"""Answers of a wrong shape, to every method that is called: never a fault of our own, never an endless wait.

ALL_WRONG_ANSWERS=1 tries every wrong value in every place (a minute for each release).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import pytest

from tests.integration.sync.scene import Scene, on
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import FakeReply, Garble, Kind, Refuse, Wrong

MEGABYTE = 2**20
DIRTY = "a\x00b\ud800c\x1b[2J\u202e"
ALL = "ALL_WRONG_ANSWERS" in os.environ
WRONG: list[object] = [None, True, -1, 10**23, 1.5, "", "x", DIRTY, [], [[]], [7], {}, {"a": {"a": []}}]

# What is answered in place of the payload, for each method: its own keys, of every wrong type.
KEYS = {
    "config.get": ("hash", "parsed", "config", "valid"),
    "config.patch": ("restart", "ok"),
    "agents.files.list": ("files",),
    "agents.workspace.list": ("entries", "totalEntries"),
    "agents.files.get": ("file",),
    "agents.files.set": ("file",),
    "cron.list": ("jobs",),
    "cron.scratch.get": ("scratch",),
    "cron.scratch.set": ("scratch",),
    "sessions.patch": ("key",),
    "sessions.reset": ("ok",),
    "chat.send": ("status",),
    "agents.delete": ("ok",),
    "sessions.delete": ("ok",),
}
INNER: dict[str, Sequence[object]] = {
    "config.patch": [{"restart": {"delayMs": value}} for value in WRONG],
    "agents.files.list": [{"files": [{"name": n, "size": s}]} for n, s in ((7, 1), ("SOUL.md", "1"))],
    "agents.workspace.list": [
        {"entries": [{"name": name, "kind": "file", "size": size}], "totalEntries": total}
        for name, size, total in ((7, 1, 1), ("SOUL.md", "1", 1), ("SOUL.md", -1, 1), ("SOUL.md", 1, 10**23))
    ],
    "agents.files.get": [{"file": {"content": value}} for value in WRONG]
    + [{"file": {"missing": "yes"}}, {"file": {"content": "x", "updatedAtMs": "now"}}],
    "agents.files.set": [{"file": {"size": value}} for value in WRONG],
    "cron.list": [{"jobs": [{"declarationKey": 7, "id": 8}, 9]}],
    "cron.scratch.get": [{"scratch": {"content": value}} for value in WRONG],
    "chat.send": [{"status": value} for value in WRONG] + [{"status": "x" * MEGABYTE}],
}
RAW = ['{"updatedAtMs": NaN}', '{"size": 1e999}', "[" * 5000, '{"a":' * 300 + "1" + "}" * 300, '"\\ud800"']


def kinds(method: str) -> list[Kind]:
    payloads: list[object] = [{key: value} for key in KEYS[method] for value in WRONG]
    payloads += [{}, *INNER.get(method, [])]
    fakes: list[Kind] = [FakeReply(payload) for payload in payloads if isinstance(payload, dict)]
    shapes: list[Kind] = [Wrong("text"), Wrong("list"), Wrong("absent")]
    every = [*fakes, *shapes, *(Garble(payload) for payload in RAW)]
    return every if ALL else every[sorted(KEYS).index(method) % 7 :: 7]


def asked(scene: Scene, method: str, agent: Any) -> list[Any]:
    """The jobs that call the method."""
    if method in ("agents.delete", "sessions.delete"):
        return [scene.ask("delete_agent", agent_id=agent, delete_row=False)]
    if method in ("config.get", "config.patch"):
        return [scene.ask("sync_gateway", gateway_id=scene.fleet.gateway_id, include_main=False, diff=True)]
    return [scene.ask("update_agent", agent_id=agent, reset_session=True, diff=True)]


def test_no_answer_is_a_fault_of_our_own(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    agents = [scene.agent("Ann")]
    scene.provision(*agents)
    wrong = [
        (method, kind)
        for method in KEYS
        if method in scene.simulator.release.methods
        for kind in kinds(method)
    ]
    faulty = []
    for number, (method, kind) in enumerate(wrong):
        scene.execute("UPDATE agents SET soul_template = :text", text=f"Number {number}.")
        if method in ("config.patch", "agents.delete", "sessions.delete"):
            every = json.dumps({"every": f"{number + 11}m"})
            scene.execute("UPDATE agents SET heartbeat_config = CAST(:every AS json)", every=every)
        scene.simulator.faults.replace([Fault(kind, method)])
        jobs = asked(scene, method, agents[0])
        scene.serve()
        scene.simulator.faults.clear()
        scene.serve_until_ended(*jobs)
        ended = [scene.job(job) for job in jobs]
        shouted = [r for r in caplog.records if r.name.startswith("worker.") and r.levelno >= logging.ERROR]
        own = [r for r in shouted if not r.name.startswith("worker.lab.simulator")]
        open_ones = [job for job in ended if job.status in ("queued", "running")]
        if own or open_ones or any("Internal error" in str(job.error) for job in ended):
            faulty.append((method, str(kind)[:100], [(job.kind, job.status, job.error) for job in ended]))
        caplog.clear()
    assert faulty == []


WHEN = '"updatedAtMs": 1e999'
LISTED = ", ".join(
    f'{{"name": "{name}.md", "kind": "file", "size": 6, {WHEN}}}' for name in ("AGENTS", "SOUL", "TOOLS")
)
READ, TAKEN = (
    f'{{"file": {{"content": "x", "size": 6, "updatedAtMs": {time}}}}}' for time in ("1e999", 10**23)
)
SCRATCH = f'{{"scratch": {{"content": "x", {WHEN}}}}}'
IMPOSSIBLE_TIMES = {
    "2026.2.12": {"agents.files.list": f'{{"files": [{LISTED}]}}'},
    "2026.9.6": {
        "agents.workspace.list": f'{{"entries": [{LISTED}], "totalEntries": 3}}',
        "cron.scratch.get": SCRATCH,
        "cron.scratch.set": SCRATCH,
    },
}


def test_a_time_that_postgres_cannot_hold_is_passed_over(scene: Scene) -> None:
    """Python reads 1e999 as infinity. A time only saves a second read, so a wrong one is no error."""
    agent = scene.agent("Ann")
    scene.provision(agent)
    scene.execute("UPDATE agents SET soul_template = 'Calm 1'")
    said = IMPOSSIBLE_TIMES[scene.simulator.release.name]
    faults = [Fault(Garble(payload), method) for method, payload in said.items()]
    for method, payload in (("agents.files.get", READ), ("agents.files.set", TAKEN)):
        faults.append(Fault(Garble(payload), method, file="SOUL.md"))
    scene.simulator.faults.replace(faults)
    job_id = scene.ask("update_agent", agent_id=agent, wake=False, diff=True, overwrite=True)
    scene.serve()
    assert (scene.job(job_id).status, scene.job(job_id).error) == ("succeeded", None)
    assert scene.simulator.faults.outstanding == []
    times = "SELECT count(updated_at_ms) AS n FROM provisioner.agent_files WHERE name = 'SOUL.md'"
    assert scene.row(times).n == 0


@pytest.mark.parametrize(
    "sentence",
    [DIRTY * 10, "x" * MEGABYTE, "\n\n\tforged line\r\nAUTH_TOKEN=x"],
    ids=["dirty", "a megabyte", "lines"],
)
def test_what_a_gateway_says_is_cleaned_and_cut_before_it_is_kept(scene: Scene, sentence: str) -> None:
    agent = scene.agent("Ann")
    scene.provision(agent)
    scene.execute("UPDATE agents SET soul_template = 'Other.'")
    scene.simulator.faults.schedule(
        Fault(Refuse(sentence, "INVALID_REQUEST"), "agents.files.set", times=None)
    )
    job_id = scene.ask("update_agent", agent_id=agent)
    scene.serve()
    job = scene.job(job_id)
    assert job.status == "failed"
    assert len(job.error) < 5000
    assert job.error.isprintable()


@on("2026.3.13")
def test_lists_of_a_wrong_shape_do_not_stop_a_delete(scene: Scene) -> None:
    ann, bob = scene.agent("Ann"), scene.agent("Bob")
    config = json.loads(scene.simulator.config_path.read_text())
    owners = [{"id": "main", "workspace": "~/own"}, {"id": "shop", "workspace": "~/shop"}]
    scene.save("openclaw.json", {**config, "agents": {"list": owners}})
    scene.provision(ann, bob)
    there = [{"id": key} for key in scene.simulator.agents()]
    files = [{"name": ["SOUL.md"], "size": {}, "updatedAtMs": [1]}]
    for agent, method, payload in (
        (bob, "agents.list", {"agents": there, "defaultId": ["main"], "mainKey": {}}),
        (ann, "agents.files.list", {"files": files}),
    ):
        order = scene.simulator.faults.schedule(Fault(FakeReply(payload), method))
        job_id = scene.ask("delete_agent", agent_id=agent)
        scene.serve()
        assert order.spent, method
        assert (scene.job(job_id).status, scene.job(job_id).error) == ("succeeded", None), method
        assert f"mc-{agent}" not in scene.simulator.agents()


@pytest.mark.parametrize("total", [10**6, 10**15])
def test_a_listing_that_does_not_end_is_given_up(scene: Scene, total: int) -> None:
    if scene.simulator.release.name != "2026.9.6":
        pytest.skip("its listings have no pages")
    agent = scene.agent("Ann")
    scene.provision(agent)
    scene.execute("UPDATE agents SET soul_template = 'Other.'")
    page = FakeReply({"entries": [{"name": "SOUL.md", "kind": "file", "size": 1}], "totalEntries": total})
    scene.simulator.faults.schedule(Fault(page, "agents.workspace.list", times=None))
    with scene.counting() as costs:
        job_id = scene.ask("update_agent", agent_id=agent)
        scene.serve()
    assert "does not come to the end of the list" in scene.job(job_id).error
    assert costs.calls["agents.workspace.list"] == 4
