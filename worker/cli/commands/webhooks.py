"""``provisioner webhook add|list|test|secret|retry|remove``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import uuid4

import typer

from worker.cli.console import Json, counted, emit, note, plain, say, short, show_list, table
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find_organization, find_webhook
from worker.jobs.store.webhooks import retry_given_up
from worker.masking.word_shapes import is_random
from worker.settings import Settings
from worker.webhooks.messages import encode, message_headers, test_message
from worker.webhooks.post import PostFailedError, post
from worker.webhooks.registry import add_webhook, all_webhooks, remove_webhook
from worker.webhooks.signatures import secret_of, shown_secret

app = typer.Typer(help="Webhooks, which are called when jobs that name them end.", no_args_is_help=True)

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Name or id of a webhook.")]
Organization = Annotated[
    str | None,
    typer.Option(
        "--organization",
        metavar="NAME",
        help="Its organization, by name or id. Needed only if there are several.",
    ),
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name by which jobs refer to it: `--webhook NAME`.")],
    url: Annotated[str, typer.Option(metavar="URL", help="Its https:// address.", show_default=False)],
    organization: Organization = None,
    as_json: Json = False,
) -> None:
    """Add a webhook, and print the secret by which its receiver verifies messages.

    The secret is derived from WEBHOOK_KEY, which must be the workers' own. Nothing is sent yet: `provisioner
    webhook test` does that.
    """
    keys = _keys(operator_settings())
    with engine().begin() as connection:
        key = add_webhook(connection, find_organization(connection, organization), name, url)
    secret = shown_secret(secret_of(keys[0], key))
    if as_json:
        emit({"id": key, "name": name, "secret": secret}, public=True)
        return
    say(f"Webhook {name} added: {key}", "Its receiver verifies messages (Standard Webhooks, v1) with:")
    typer.echo(f"  {secret}")


@app.command("list")
def list_webhooks(as_json: Json = False) -> None:
    """List the webhooks: whether they answer, and how many messages wait or were given up on."""
    with engine().connect() as connection:
        webhooks = [dict(row) for row in all_webhooks(connection)]
    for webhook in webhooks:
        webhook["url"] = _without_secrets(webhook["url"])
    shown = table("Webhook", "Organization", "State", "Waiting", "Given up", "Id", last="URL", folds=True)
    for webhook in webhooks:
        shown.add_row(
            plain(webhook["name"]),
            plain(webhook["organization"] or "gone"),
            _state(webhook),
            str(webhook["waiting"]),
            str(webhook["given_up"]),
            short(webhook["id"]),
            plain(webhook["url"]),
        )
    nothing = "No webhook yet: provisioner webhook add NAME --url https://..."
    show_list(webhooks, shown, nothing=nothing, as_json=as_json)
    for webhook in webhooks:
        if webhook["failures"] and not as_json:
            say(f"{plain(webhook['name'])}: {plain(webhook['last_error'])}")


@app.command("test")
def try_webhook(webhook: Webhook, organization: Organization = None, as_json: Json = False) -> None:
    """Send a message of type `webhook.test` from here, once. Exits 1 if the webhook does not accept it."""
    settings = operator_settings()
    keys = _keys(settings)
    with engine().connect() as connection:
        found = find_webhook(connection, webhook, organization)
    body = encode(test_message(found.id))
    headers = message_headers(keys, found.id, f"test_{uuid4()}", body)
    error, answer = None, None
    try:
        answer = post(found.url, headers, body, settings.webhook_networks)
    except PostFailedError as failed:
        error, answer = str(failed), failed.answer
    if as_json:
        emit({"id": found.id, "name": found.name, "answer": answer, "error": error})
    else:
        say(f"Webhook {plain(found.name)} " + (f"failed: {plain(error)}" if error else f"answered {answer}."))
    if error:
        raise typer.Exit(FAILED)


@app.command("secret")
def secret(webhook: Webhook, organization: Organization = None, as_json: Json = False) -> None:
    """Print the secret by which the receiver of a webhook verifies messages."""
    keys = _keys(operator_settings())
    with engine().connect() as connection:
        found = find_webhook(connection, webhook, organization)
    shown = shown_secret(secret_of(keys[0], found.id))
    if as_json:
        emit({"id": found.id, "name": found.name, "secret": shown}, public=True)
    else:
        typer.echo(shown)


@app.command("retry")
def retry(webhook: Webhook, organization: Organization = None, as_json: Json = False) -> None:
    """Resend the messages that were given up on."""
    with engine().begin() as connection:
        found = find_webhook(connection, webhook, organization)
        count = retry_given_up(connection, found.id)
    if as_json:
        emit({"id": found.id, "name": found.name, "retried": count})
    else:
        say(f"{counted(count, 'message')} to {plain(found.name)} will be sent again.")


@app.command("remove")
def remove(webhook: Webhook, organization: Organization = None, as_json: Json = False) -> None:
    """Remove a webhook, with all messages that it has not accepted."""
    with engine().begin() as connection:
        found = find_webhook(connection, webhook, organization)
        remove_webhook(connection, found.id)
    if as_json:
        emit({"id": found.id, "removed": True})
    else:
        say(f"Webhook {plain(found.name)} removed.")


def _keys(settings: Settings) -> Sequence[str]:
    if not settings.webhook_keys:
        raise WrongUseError(
            "WEBHOOK_KEY, from which the secrets of webhooks are derived, is not set: set it to the workers'"
            " value."
        )
    if len(settings.webhook_keys) > 1:
        note("WEBHOOK_KEY holds several keys: the secret of the first is meant.")
    return settings.webhook_keys


def _state(webhook: dict[str, Any]) -> str:
    if webhook["failures"]:
        return f"fails ({webhook['failures']})"
    return "answers" if webhook["last_success_at"] else "not called"


_SHORTEST_SECRET = 12


def _without_secrets(url: str) -> str:
    """The URL without its query and without what looks random in its path: some receivers know a sender by
    nothing else."""
    parts = urlsplit(url)
    path = "/".join("..." if is_random(one, _SHORTEST_SECRET) else one for one in parts.path.split("/"))
    return parts._replace(path=path, query="..." if parts.query else "").geturl()
