"""The database and servers of the integration tests serve these too."""

from tests.integration.conftest import (  # noqa: F401
    migrated_template,
    quick_hashes,
    shared_engine,
)
