"""Jobs about a whole gateway: its sync (look, fan out, result), and the sync of heartbeat settings."""
