"""How the owner of a gateway edits its config: a whole file at a time takes the place of the one before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def save(folder: Path, name: str, content: Any) -> None:
    """Put ``content``, text or what is to be JSON, in the place of a file."""
    draft = folder / f"{name}.draft"
    draft.touch(mode=0o600)
    draft.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    os.replace(draft, folder / name)
