"""The one writer of a gateway's config: what jobs want of it (intents), the batch, the lease, the removals;
and whether the gateway may be tried at all (circuit breaker)."""
