"""The one writer of a gateway's config: the intents that jobs record, the batch, the lease and the removals.
The circuit breaker, which says whether a gateway may be tried at all, is here too."""
