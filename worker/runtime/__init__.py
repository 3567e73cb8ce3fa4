"""What a worker process hands to its work: services, seats for each gateway, the pool of new tokens."""
