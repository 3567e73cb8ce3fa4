from __future__ import annotations

from tests.integration.cli.conftest import provisioner

__all__ = ["provisioner"]
