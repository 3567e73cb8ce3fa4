"""Objects that all jobs of a worker process share: services, gateways' slots, and the pool of new tokens."""
