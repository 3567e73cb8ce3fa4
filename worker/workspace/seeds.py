"""Recognizes texts that OpenClaw itself writes into a new workspace (seeds).

Neither the agent nor a person wrote them, so they may be replaced.

Of the files that an agent or its human fill in, OpenClaw seeds only USER.md: the release's
``docs/reference/templates/USER.md`` without its front matter and the blank lines after it. The hashes are
from the packages named below; running gateways of 2026.2.12 and 2026.9.6 were seen to write exactly that
after ``agents.create``. What another release seeds is kept like any other text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_SEEDS: Mapping[str, Mapping[str, int]] = {
    "USER.md": {
        # 2026.2.12, 2026.2.26, 2026.3.13
        "178a5807bd2e6ace25b80a366f0f7d8d3f354a47f577c4ab0092397456b8738f": 477,
        # 2026.4.24, 2026.5.22, 2026.6.11, 2026.7.1
        "e418ca9a680553b3ad8f54aecb0d403330810bb77826ab5251cc1dc13368fe16": 537,
        # 2026.8.1, 2026.9.1
        "5f8e1a04861b95b659a907e3ad9ae449c45713246d2168a26ec92c8f1e89ff40": 871,
        # 2026.9.6
        "46e0d8c937df7b104de97a23c58537292672654194879ca9f76b02075e022555": 1137,
    }
}
"""By file name: SHA-256 of each seeded text, and its size in bytes."""


def is_seed(name: str, content: str) -> bool:
    """Whether a file holds exactly what some release of OpenClaw writes into a new workspace."""
    return hashlib.sha256(content.encode()).hexdigest() in _SEEDS.get(name, {})


def may_be_seed(name: str, size: int) -> bool:
    """Whether a file of ``size`` bytes could be a seed and so is worth reading."""
    return size in _SEEDS.get(name, {}).values()
