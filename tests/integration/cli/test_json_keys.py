"""Each command that takes --json prints the keys that are on record: programs of others read them.

A key is only ever added: to do so, add the line that the failure shows to json_keys.txt.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from tests.integration.cli.json_keys import Keys, paths
from worker.cli.app import COMMANDS, load

GATEWAY, AWAY = "gateway of Ada", "gateway of Cid"
LAB = {"demo"}
"""It makes its own servers, and test_demo compares its keys."""


def commands_with_json() -> set[str]:
    """``job``, ``gateway add``: every command that has the option."""
    found = set()
    for name in COMMANDS:
        command: Any = load(name)
        inner = {f"{name} {verb}": one for verb, one in getattr(command, "commands", {}).items()}
        for words, one in (inner or {name: command}).items():
            if any("--json" in parameter.opts for parameter in one.params):
                found.add(words)
    return found


def job_of_tomorrow(engine: Engine) -> UUID:
    """A job that no worker takes today."""
    later = text(
        "INSERT INTO provisioner.jobs (id, kind, status, agent_id, created_at, next_attempt_at)"
        " SELECT :id, 'provision_agent', 'queued', id, now(), now() + interval '1 day' FROM agents LIMIT 1"
    )
    key = uuid4()
    with engine.begin() as connection:
        connection.execute(later, {"id": key})
    return key


def test_every_command_prints_the_keys_that_are_on_record(
    staffed: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    keys = Keys()
    used = set()

    def ask(command: str, *arguments: str, code: int = 0) -> Any:
        document = staffed.json(*command.split(), *arguments, code=code)
        keys.add(command, document)
        used.add(command)
        return document

    ask("migrate")
    ask("gateway add", "spare", "--url", "ws://127.0.0.1:9")
    ask("board add", "Spare", "--gateway", "spare")
    ask("agent add", "Dee", "--board", "Board Ada")
    ask("main", GATEWAY, "--no-wake")
    ask("lead", "Board Ada")
    ask("provision", "Ada", "--no-wake")
    ask("update", "Ada", "--rotate-tokens", "--diff", "--no-wake")
    ask("update", "Ada", "--dry-run", "--diff", "--rotate-tokens")
    ask("provision", "Dee", "--no-wake")
    ask("sync", GATEWAY)
    ask("sync", GATEWAY, "--dry-run", "--diff", "--rotate-tokens", code=1)
    failed = ask("sync", AWAY, "--no-main", code=1)
    ask("retry", failed["id"], code=1)
    ask("heartbeats", GATEWAY)
    ask("cancel", str(job_of_tomorrow(engine)))
    ask("job", failed["id"], code=1)
    ask("jobs")
    with engine.begin() as connection:
        connection.execute(text("UPDATE agents SET identity_profile = jsonb_build_object('role', 'Cook')"))
    ask("sync", GATEWAY, "--dry-run", code=1)
    ask("drift", GATEWAY)
    changed = ask("sync", GATEWAY)
    ask("rollback", "Ada", "--diff")
    ask("rollback", "--job", changed["id"])
    ask("rollback", "--list")
    ask("update", "Ada", "--dry-run", "--no-wake")
    ask("rollback", "Ada", "--release")
    tar = tmp_path / "dee.tar"
    tar.write_bytes(staffed.run("agent", "export", "Dee").stdout_bytes)
    ask("delete", "Dee")
    ask("bundles")
    ask("orphans", GATEWAY)
    ask("restore", "Dee", "--no-wake")
    ask("agent import", str(tar), "--board", "Board Ada", "--no-wake")
    ask("adopt", GATEWAY, "--board", "Board Ada", "--yes")
    ask("sync", GATEWAY, "--canary", "1", "--dry-run", code=1)
    out = ask("sync", GATEWAY, "--canary", "1", "--wait", "1h", "--no-wait")
    while not (ask("rollout status", out["id"])["rollout"] or {}).get("rings"):
        time.sleep(0.05)
    for command in ("pause", "resume", "abort"):
        ask(f"rollout {command}", out["id"])
    schedule = ask("schedule add", GATEWAY, "--every", "6h")
    ask("schedule list")
    ask("schedule remove", schedule["id"])
    window = ask("window add", GATEWAY, "--cron", "0 2 * * *", "--duration", "3h")
    ask("window list")
    ask("window remove", window["id"])
    ask("settings set", "skills", '["cooking"]', "--agent", "Ada")
    ask("settings set", "tools.profile", "minimal", "--board", "Board Ada", "--lock")
    ask("settings show")
    ask("settings show", "--agent", "Ada")
    ask("settings unset", "tools", "--board", "Board Ada")
    ask("owners set", "SOUL.md", "ours", "--board", "Board Ada")
    ask("owners show")
    ask("owners unset", "SOUL.md", "--board", "Board Ada")
    (tmp_path / "soul.md").write_text("{% if role == 'lead' %}I lead.{% endif %}")
    ask("template set", "SOUL.md", str(tmp_path / "soul.md"), "--board", "Board Ada")
    ask("template check", "--board", "Board Ada")
    ask("template promote", "SOUL.md", "--board", "Board Ada")
    ask("template list")
    ask("template list", "--agent", "Ada")
    ask("template show", "SOUL.md", "--board", "Board Ada")
    ask("template show", "SOUL.md")
    ask("template diff", "SOUL.md", "--board", "Board Ada")
    ask("template history", "SOUL.md", "--board", "Board Ada")
    ask("template revert", "SOUL.md", "--board", "Board Ada")
    (tmp_path / "soul.md").write_text("{{ agent_name|trim(base_url) }}")
    ask("template set", "SOUL.md", str(tmp_path / "soul.md"), "--board", "Board Ada")
    staffed.env["BASE_URL"] = f"https://{'x' * 100}.example"
    ask("template check", "SOUL.md", "--board", "Board Ada", code=1)
    staffed.env["BASE_URL"] = None
    ask("template overrides", "inherit", "--agent", "Ada")
    ask("gateway list")
    ask("board list")
    ask("agent list")
    ask("gateway allow-rewrite", GATEWAY)
    ask("gateway allow-rewrite", GATEWAY, "--revoke")
    ask("doctor", GATEWAY)
    ask("doctor", "--all", code=1)
    ask("device show")
    ask("metrics")
    ask("prune", "--dry-run")
    staffed.env["WEBHOOK_KEY"] = "k" * 32
    webhook = ask("webhook add", "ci", "--url", "https://nobody.invalid/")
    ask("webhook list")
    ask("webhook secret", "ci")
    ask("webhook test", "ci", code=1)
    ask("webhook retry", "ci")
    ask("webhook remove", webhook["id"])
    assert used == commands_with_json() - LAB
    assert keys.differences(of=used) == ([], [])


def test_a_key_that_goes_or_comes_would_be_noticed() -> None:
    document = {
        "id": 1,
        "agents": [{"files": {"A.md": {"action": "create"}}, "roster": {"changes": {"a": 1}}}],
    }
    assert list(paths(document)) == [
        "id",
        "agents",
        "agents[].files",
        "agents[].files.*",
        "agents[].files.*.action",
        "agents[].roster",
        "agents[].roster.changes",
    ]
