"""Jobs about a whole gateway: its sync (plan, fan out, result), and the sync of heartbeat settings."""
