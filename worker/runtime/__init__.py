"""What the jobs of a worker process share: services, each gateway's slots, and the pool of new tokens."""
