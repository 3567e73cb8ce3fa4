"""What a gateway's owner allows us to rewrite in its config files, and the refusal of everything else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.errors import as_sentence
from worker.gateway.address import GatewayAddress
from worker.gateway.error_builders import unwritten_include
from worker.gateway.rewrites import Rewrite, describe_rewrites, has_comments, removal_rewrites, rewrites_of
from worker.gateway.roster_plan import RosterPlan
from worker.gateway.roster_reading import LiveRoster
from worker.jobs.states import ReasonCode
from worker.roster.intents import Refusal
from worker.workspace.context import GatewayFacts


@dataclass(frozen=True)
class RewriteReview:
    """What a config write would rewrite, and the keys of the rewrites that are allowed. ``comments``: the
    config file has comments, which the first write drops on every release."""

    rewrites: tuple[Rewrite, ...]
    allowed: frozenset[str]
    comments: bool

    @property
    def refused(self) -> tuple[Rewrite, ...]:
        """The rewrites that need permission and lack it; a write is refused while there are any."""
        return tuple(one for one in self.rewrites if not one.kept and one.key not in self.allowed)

    def refusal(self, gateway: str) -> str:
        """The sentence that refuses the write and says how to allow it. ``gateway``: its name."""
        kept = tuple(one for one in self.rewrites if one.kept)
        loses = describe_rewrites(self.refused + kept, comments=self.comments)
        return (
            f"A config write would rewrite what the owner of gateway {gateway!r} wrote into openclaw.json, so"
            f" none was sent: at any write its OpenClaw release {loses}."
            f" `provisioner gateway allow-rewrite {quoted(gateway)}` shows all of it and allows it there."
        )


def entry_stays(refusal: Refusal) -> str:
    """The warning for a job that continues although its agent's entry was not written."""
    return f"Its roster entry was left as it is. {refusal.sentence}"


def visibility_stays(refusal: Refusal) -> str:
    """The warning that a patch was not written which would only change the channels' heartbeat visibility."""
    return f"The channels' heartbeat visibility was left as it is. {refusal.sentence}"


def rewrite_refusal(
    engine: Engine,
    gateway: GatewayFacts,
    address: GatewayAddress,
    live: LiveRoster,
    leaving: Collection[str] = (),
) -> Refusal | None:
    """Why no config write may be sent to the gateway, or None if one may. ``leaving``: ids that the write
    would remove."""
    besides = removal_rewrites(live, leaving)
    if not (besides or live.includes or live.dialect.writes_variables):
        return None
    with engine.connect() as connection:
        review = review_rewrites(connection, UUID(str(gateway.id)), live, address.token, besides)
    if not review.refused:
        return None
    return Refusal(review.refusal(gateway.name), ReasonCode.REWRITE_REFUSED)


def predicted_refusal(
    engine: Engine, gateway: GatewayFacts, address: GatewayAddress, live: LiveRoster, plan: RosterPlan
) -> Refusal | None:
    """Predict for a dry run why the plan's patch would be refused, in the words of a real refusal.

    None if the plan needs no patch or no reason is known: only a write shows that a config is immutable.
    """
    if plan.document is None:
        return None
    refusal = rewrite_refusal(engine, gateway, address, live)
    if refusal is None and (where := live.unwritten_include(plan.document)) is not None:
        sentence = as_sentence(unwritten_include(f"the gateway at {address.url}", "config.patch", where))
        refusal = Refusal(sentence, ReasonCode.GATEWAY_REFUSED)
    return refusal


def review_rewrites(
    connection: Connection,
    gateway_id: UUID,
    live: LiveRoster,
    credential: str | None,
    besides: Sequence[Rewrite] = (),
) -> RewriteReview:
    """Find out what a write to the gateway would rewrite, and what of it is allowed. ``credential``: the
    gateway's token; ``besides``: rewrites by this particular write, in addition to those by any write."""
    rewrites = tuple(sorted({*rewrites_of(live, credential), *besides}))
    if not rewrites:
        return RewriteReview((), frozenset(), has_comments(live))
    row = connection.execute(_REVIEW, {"gateway_id": gateway_id}).one()
    if row.written_before and all(one.kind == "hidden" or one.kept for one in rewrites):
        # An earlier write of ours wrote out all variables, so whatever is hidden now is a value.
        rewrites = ()
    stored = row.allowed_rewrites
    items = stored.get("items") if isinstance(stored, Mapping) else None
    return RewriteReview(rewrites, frozenset(items if isinstance(items, list) else ()), has_comments(live))


def allow(connection: Connection, gateway_id: UUID, rewrites: Sequence[Rewrite]) -> None:
    """Allow these rewrites, in addition to those that are already allowed."""
    items = sorted({one.key for one in rewrites})
    connection.execute(_ALLOW, {"gateway_id": gateway_id, "items": items})


def revoke(connection: Connection, gateway_id: UUID) -> int:
    """Revoke all permissions. Returns how many there were."""
    row = connection.execute(_REVOKE, {"gateway_id": gateway_id}).one_or_none()
    return int(row.items) if row is not None else 0


def allowed(connection: Connection, gateway_id: UUID) -> frozenset[str]:
    """The keys of the rewrites that are allowed now."""
    row = connection.execute(_REVIEW, {"gateway_id": gateway_id}).one()
    stored = row.allowed_rewrites
    items = stored.get("items") if isinstance(stored, Mapping) else None
    return frozenset(items if isinstance(items, list) else ())


def quoted(name: str) -> str:
    """A gateway's name as a command-line argument, in quotation marks if necessary."""
    return name if name and all(c.isalnum() or c in "._-" for c in name) else f"'{name}'"


_REVIEW = text("""
    SELECT (SELECT allowed_rewrites FROM provisioner.gateway_states WHERE gateway_id = :gateway_id),
        EXISTS (SELECT FROM provisioner.agent_files WHERE gateway_id = :gateway_id) AS written_before
""")
_ALLOW = text("""
    INSERT INTO provisioner.gateway_states AS s (gateway_id, allowed_rewrites)
    VALUES (:gateway_id, jsonb_build_object('items', :items, 'at', now()))
    ON CONFLICT (gateway_id) DO UPDATE SET allowed_rewrites = jsonb_build_object(
        'items', (
            SELECT jsonb_agg(DISTINCT item) FROM jsonb_array_elements(
                coalesce(s.allowed_rewrites -> 'items', '[]') || (excluded.allowed_rewrites -> 'items')
            ) AS item
        ), 'at', now()
    )
""").bindparams(bindparam("items", type_=JSONB))
_REVOKE = text("""
    WITH before AS (
        SELECT gateway_id, jsonb_array_length(coalesce(allowed_rewrites -> 'items', '[]')) AS items
        FROM provisioner.gateway_states WHERE gateway_id = :gateway_id
    )
    UPDATE provisioner.gateway_states s SET allowed_rewrites = NULL
    FROM before WHERE s.gateway_id = before.gateway_id RETURNING before.items
""")
