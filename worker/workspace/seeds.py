"""Recognizes texts that OpenClaw itself writes into a new workspace (seeds).

Neither the agent nor a person wrote them, so they may be replaced.

A release seeds ``docs/reference/templates/NAME`` without its front matter and the blank lines after it. The
hashes are from the packages named below; running gateways of 2026.2.12 and 2026.9.6 were seen to write that
after ``agents.create``, and before a run where a file is missing. What another release seeds is kept like any
other text. Up to 2026.3, ``agents.create`` adds the agent's name to IDENTITY.md. The file that carries the
token needs none, since it is read back.
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
    },
    "AGENTS.md": {
        # 2026.2.12
        "b9a756230e062b1ee3fa5ea17b5d78fa938703938b1ce79bab6e34af41bfdbe4": 7869,
        # 2026.3.13
        "3ecae6a107899f284728bf1aa406c75d141773f9f380ba39ba378b5e9fa28f4c": 7874,
    },
    "HEARTBEAT.md": {
        # 2026.2.12, 2026.3.13
        "dac422286075ba178e9bae58154cc0ae8749a66854e438c9c58e8eb91f22c126": 168,
    },
    "IDENTITY.md": {
        # 2026.2.12, 2026.3.13
        "1379f924cf4b4d6d0a306ecc2544a913dab706a1325fcf8eb9b267686ee8551c": 636,
        # 2026.9.6
        "59b223766c8dd978162044e333a684c72e22af753d1ba3dc3bff4b2d915c54e2": 1401,
    },
    "SOUL.md": {
        # 2026.2.12, 2026.3.13
        "95c467f710183b2c0397c29ec4ef886bb723671a39ee767dc4d59165f723b68f": 1673,
        # 2026.9.6
        "4f9042f259b076e429d0f01ce39340030f47ea5b7f5befe306296c36baf1f60f": 1570,
    },
}
"""By file name: SHA-256 of each seeded text, and its size in bytes."""


def is_seed(name: str, content: str) -> bool:
    """Whether a file holds exactly what some release of OpenClaw writes into a new workspace."""
    return hashlib.sha256(content.encode()).hexdigest() in _SEEDS.get(name, {})


def may_be_seed(name: str, size: int) -> bool:
    """Whether a file of ``size`` bytes could be a seed and so is worth reading."""
    return size in _SEEDS.get(name, {}).values()
