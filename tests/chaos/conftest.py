"""Hashes with few rounds, as in the integration tests."""

from tests.integration.conftest import quick_hashes  # noqa: F401
