"""Whoever waits is told of the end of a job: by NOTIFY, and by the webhook that the job names."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.world import World
from tests.certificates import self_signed
from tests.integration.listening import listening
from tests.webhook_receiver import Receiver
from worker.webhooks.registry import add_webhook
from worker.webhooks.signatures import secret_of

KEY = "the-key-of-all-webhooks-in-these-tests"


def test_the_end_of_an_update_is_told(world: World, tmp_path: Path) -> None:
    agent = world.take()
    tls = self_signed(tmp_path)
    with Receiver(tls) as receiver, listening(world.engine) as listener:
        with world.engine.begin() as connection:
            webhook = add_webhook(connection, world.fleet.organization_id, "ci", receiver.url())
        worker = world.start_worker(
            WEBHOOK_KEY=KEY,
            WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
            SSL_CERT_FILE=str(tmp_path / "gateway.pem"),
        )
        job_id = world.send(agent.agent_id, "update_agent", wake=False, webhook="ci")
        received = receiver.take()
        worker.stop()
        ended = world.ended(job_id)
        assert ended["status"] == "succeeded", ended["error"]
        assert (received.message["data"]["id"], received.message["data"]["status"]) == (
            str(job_id),
            "succeeded",
        )
        assert received.is_signed_with(secret_of(KEY, webhook))
        assert (str(job_id), "succeeded") in [one for batch in listener.batches() for one in batch]
