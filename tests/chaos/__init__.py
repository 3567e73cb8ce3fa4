"""Chaos: everything that can break is broken on purpose, and one oracle says whether anything was lost."""
