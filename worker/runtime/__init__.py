"""What a worker process shares among its jobs: services, each gateway's seats, and the pool of new tokens."""
