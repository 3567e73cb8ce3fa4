"""Edits a gateway's config as its owner does: each edit replaces a whole file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def save(folder: Path, name: str, content: Any) -> None:
    """Replace the file ``name`` with ``content``, which is text or a value to write as JSON."""
    draft = folder / f"{name}.draft"
    draft.touch(mode=0o600)
    draft.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    os.replace(draft, folder / name)
