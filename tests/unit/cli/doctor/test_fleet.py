from __future__ import annotations

import pytest

from worker.cli.doctor.fleet import shown_url


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("ws://host:18789", "ws://host:18789"),
        ("wss://u:secret@host/path?token=secret#secret", "wss://host/path"),
        ("http://u:secret@host:80/?token=secret", "http://host:80"),
        ("ws://host:secret", "(cannot be read)"),
        ("secret", "(none)"),
        ("", "(none)"),
    ],
)
def test_a_stored_url_is_shown_without_what_may_be_secret(stored: str, shown: str) -> None:
    assert shown_url(stored) == shown
