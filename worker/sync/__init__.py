"""A whole gateway's jobs: its sync (look, fan out, result) and the sync of heartbeat settings."""
