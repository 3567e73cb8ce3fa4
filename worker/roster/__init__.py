"""The one writer of a gateway's config: the intents that jobs record, batches, the lease and removals; and
each gateway's circuit breaker, which decides whether the gateway may be tried at all."""
