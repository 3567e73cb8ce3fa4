"""Our own client where it must fail, and a reader of what it then says to a person (rules.md 44)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conformance.conftest import Target
from worker.errors import PermanentError, ProvisionerError, TransientError
from worker.gateway.address import GatewayAddress
from worker.gateway.client import GatewayClient
from worker.gateway.device import DeviceKey
from worker.gateway.errors import GatewayError

LONGEST_SENTENCE = 420
_NO_WORDS = re.compile(r"[{}\[\]]|Traceback|\w+(Error|Exception)\b|\b(None|True|False)\b")


class Visitor:
    """Calls a gateway as a worker does, with a device of its own: no test eats from another's limits."""

    def __init__(self, url: str, token: str | None, *, release: str = "") -> None:
        self.url = url
        self.token = token
        self.release = release
        self.device = DeviceKey.generate()
        self.client = GatewayClient(GatewayAddress(url, token), self.device)

    @classmethod
    def to(cls, target: Target, *, url: str | None = None) -> Visitor:
        """One with the right token. ``url``: another way to the same gateway."""
        return cls(url or target.url, target.token, release=target.release)

    def refused(
        self,
        method: str = "config.get",
        params: Mapping[str, Any] | None = None,
        *,
        says: tuple[str, ...] = (),
        deadline_s: float = 20,
    ) -> GatewayError:
        """The error of a call that must fail; its sentence was read, and names the gateway."""
        with pytest.raises(GatewayError) as caught:
            self.client.call(method, params, deadline_s=deadline_s)
        read(caught.value, self.url, *says, secret=self.token, release=self.release)
        return caught.value

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()


def read(error: ProvisionerError, *names: str, secret: str | None = None, release: str = "") -> None:
    """One sentence in plain words: it holds ``names``, and no token, traceback, dump or line break; its type
    alone says whether trying again helps. Printed, for a person to read with ``pytest -rP``."""
    sentence = str(error)
    kind = "transient" if isinstance(error, TransientError) else "permanent"
    print(f"SENTENCE | {release} | {type(error).__name__} ({kind}) | {sentence}")
    assert isinstance(error, TransientError) is not isinstance(error, PermanentError)
    for name in names:
        assert name in sentence
    assert secret is None or secret not in sentence + repr(error)
    assert len(sentence) <= LONGEST_SENTENCE
    assert re.fullmatch(r"[a-zA-Z][^\n]*[^.\s]", sentence)
    assert not _NO_WORDS.search(sentence)
