"""Roll-outs: a change reaches the agents of gateways ring by ring (rules.md 56, 57)."""
