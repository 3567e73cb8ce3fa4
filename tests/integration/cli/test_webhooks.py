"""`provisioner webhook`, and what a job's page, doctor and the metrics say of webhooks."""

from __future__ import annotations

import base64
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.certificates import self_signed
from tests.integration.agents.fleet import execute, one
from tests.integration.cli.conftest import Provisioner
from tests.webhook_receiver import Receiver
from worker.cli.doctor.servers import check_database
from worker.webhooks.signatures import secret_of

KEY = "the-key-of-all-webhooks-in-these-tests"
URL = "https://hook.example/in/5x8fG3kQ2LmN7pR1sT4vW6yZ/now?token=of-the-receiver"
SHOWN = "https://hook.example/in/.../now?..."


@pytest.fixture
def keyed(fleet: Provisioner) -> Provisioner:
    fleet.env |= {"WEBHOOK_KEY": KEY, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    return fleet


def test_it_is_added_with_a_secret_that_only_this_shows(keyed: Provisioner) -> None:
    added = keyed.run("webhook", "add", "ci", "--url", URL)
    assert added.exit_code == 0, added.output
    (listed,) = keyed.json("webhook", "list")
    assert (listed["name"], listed["failures"], listed["waiting"]) == ("ci", 0, 0)
    assert listed["url"] == SHOWN
    secret = "whsec_" + base64.b64encode(secret_of(KEY, UUID(listed["id"]))).decode()
    assert secret in added.stdout.split()
    assert keyed.run("webhook", "secret", "ci").stdout.strip() == secret
    page = keyed.run("webhook", "list").stdout
    assert "not called" in page
    assert secret not in page
    assert "of-the-receiver" not in page
    assert keyed.json("webhook", "remove", listed["id"][:8]) == {"id": listed["id"], "removed": True}
    assert "No webhook yet" in keyed.run("webhook", "list").stdout


def test_what_cannot_be_is_a_sentence(keyed: Provisioner, engine: Engine) -> None:
    add = ("webhook", "add", "ci", "--url")
    assert "must begin with https://" in keyed.refused(*add, "http://hook.example/")
    assert "1 to 100 printable characters" in keyed.refused("webhook", "add", " ", "--url", URL)
    assert keyed.run(*add, URL).exit_code == 0
    assert "has a webhook 'ci' already" in keyed.refused(*add, URL)
    assert "There is no webhook 'cd'" in keyed.refused("webhook", "test", "cd")
    assert "There is no organization 'x'" in keyed.refused(*add, URL, "--organization", "x")
    refused = keyed.refused("provision", "Ada", "--webhook", "cd", "--no-wait")
    assert "there is no webhook 'cd' in the organization of this job's agent" in refused
    assert one(engine, "SELECT count(*) FROM provisioner.jobs")[0] == 0
    keyed.env["WEBHOOK_KEY"] = None
    for command in (("add", "cd", "--url", URL), ("test", "ci"), ("secret", "ci")):
        assert keyed.refused("webhook", *command).startswith("WEBHOOK_KEY, from which")
    keyed.env["WEBHOOK_KEY"] = "short"
    assert "WEBHOOK_KEY: each key needs at least 32 characters" in keyed.refused("webhook", "list")
    keyed.env |= {"WEBHOOK_KEY": KEY, "WEBHOOK_ALLOWED_NETWORKS": "10.0.0.1/8"}
    assert "WEBHOOK_ALLOWED_NETWORKS: 10.0.0.1/8 has host bits set" in keyed.refused("webhook", "list")


def test_an_organization_is_named_where_there_are_several(keyed: Provisioner, engine: Engine) -> None:
    execute(
        engine,
        "INSERT INTO organizations (id, name, created_at, updated_at)"
        " SELECT gen_random_uuid(), 'Other', created_at, updated_at FROM organizations",
    )
    asked = keyed.refused("webhook", "add", "ci", "--url", URL)
    assert "Name an organization, with --organization NAME or ID: there are Other (" in asked
    for name in ("Other", "Standalone"):
        assert keyed.run("webhook", "add", "ci", "--url", URL, "--organization", name).exit_code == 0
    assert "Several webhooks are meant by 'ci'" in keyed.refused("webhook", "secret", "ci")
    shown = {
        keyed.run("webhook", "secret", "ci", "--organization", name).stdout
        for name in ("Other", "Standalone")
    }
    assert len(shown) == 2


def test_a_test_says_what_the_webhook_answered(
    keyed: Provisioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gateway.pem"))
    with Receiver(tls) as receiver:
        added = keyed.json("webhook", "add", "ci", "--url", receiver.url())
        assert keyed.run("webhook", "test", "ci").stdout == "Webhook ci answered 204.\n"
        received = receiver.take()
        assert received.message["type"] == "webhook.test"
        assert received.headers["webhook-id"].startswith("test_")
        assert received.is_signed_with(base64.b64decode(added["secret"].removeprefix("whsec_")))
        receiver.status = 503
        failed = keyed.run("webhook", "test", "ci")
        assert (failed.exit_code, failed.stdout) == (1, "Webhook ci failed: 127.0.0.1 answered 503.\n")
        answer = keyed.json("webhook", "test", "ci", code=1)
        assert (answer["answer"], answer["error"]) == (503, "127.0.0.1 answered 503.")


def test_a_failure_is_seen_on_the_jobs_page_by_doctor_and_in_the_metrics(
    keyed: Provisioner, engine: Engine
) -> None:
    def page_of(job_id: str) -> str:
        """The job's page, with the lines joined that 80 columns break."""
        return " ".join(keyed.run("job", job_id).stdout.split())

    keyed.run("webhook", "add", "ci", "--url", URL)
    job_id = keyed.run("provision", "Ada", "--webhook", "ci", "--no-wait").stdout.strip()
    assert "ci is called when the job has ended" in page_of(job_id)
    assert keyed.run("cancel", job_id).exit_code == 0
    assert "ci is called next" in page_of(job_id)

    def findings() -> list[str]:
        with engine.connect() as connection:
            return [finding.says for finding in check_database(connection) if finding.check == "webhooks"]

    assert findings() == []
    execute(engine, "UPDATE provisioner.webhooks SET not_before = now() - interval '2 minutes'")
    execute(engine, "UPDATE provisioner.jobs SET finished_at = now() - interval '2 minutes'")
    (unsent,) = findings()
    assert unsent == (
        "1 message to webhook 'ci' not sent within a minute: start a worker that has WEBHOOK_KEY"
    )
    why = "hook.example answered 503."
    execute(engine, "UPDATE provisioner.webhooks SET failures = 3, last_error = :why", why=why)
    execute(engine, "UPDATE provisioner.webhook_deliveries SET attempts = 3, error = :why", why=why)
    assert findings() == [f"webhook 'ci' failed 3 times in a row: {why}"]
    assert f"ci has not accepted the message, after 3 attempts: {why}" in page_of(job_id)
    told = keyed.json("job", job_id, code=1)["webhook"]
    assert (told["name"], told["status"], told["attempts"], told["error"]) == ("ci", "pending", 3, why)
    page = keyed.run("webhook", "list").stdout
    assert "fails (3)" in page
    assert f"ci: {why}" in page
    metrics = {sample["name"]: sample["value"] for sample in keyed.json("metrics")}
    assert metrics["provisioner_webhook_failures"] == 3
    assert metrics["provisioner_webhook_waiting"] == 1
    assert metrics["provisioner_webhook_oldest_seconds"] > 100
    assert metrics["provisioner_webhook_given_up"] == 0
    execute(engine, "UPDATE provisioner.webhook_deliveries SET status = 'failed', finished_at = now()")
    assert "ci did not accept the message, after 3 attempts" in page_of(job_id)
    execute(engine, "UPDATE provisioner.jobs SET status = 'failed', error = 'It broke.'")
    assert "next provisioner provision Ada --webhook ci" in page_of(job_id)
    assert keyed.json("webhook", "retry", "ci")["retried"] == 1
