"""What a worker process shares among its jobs: services, each gateway's slots, and the pool of new tokens."""
