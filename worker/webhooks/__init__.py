"""Calls webhooks when jobs end: signed, over HTTPS, outside of the jobs' slots (decisions.md D17)."""
