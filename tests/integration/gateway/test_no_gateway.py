"""A server at a gateway's URL that is not a gateway is recognized at the first try, whatever it sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.errors import GatewayError, GatewayUnreachable, PermanentGatewayError


@contextmanager
def speaker(words: bytes, *, asked: bool, stays: bool) -> Iterator[str]:
    """A server that sends ``words``, at once or after it was ``asked``, and then ``stays`` or hangs up."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        try:
            while True:
                peer, _ = listener.accept()
                with peer:
                    if asked:
                        peer.recv(4096)
                    peer.sendall(words)
                    if stays:
                        over.wait(10)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("stays", [True, False], ids=["stays", "hangs up"])
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "at once"])
@pytest.mark.parametrize(
    "words", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail ESMTP\r\n", b"-ERR unknown command\r\n", b"x" * 20_000]
)
def test_what_speaks_another_protocol_is_no_gateway(words: bytes, asked: bool, stays: bool) -> None:
    device = DeviceKey.generate()
    with speaker(words, asked=asked, stays=stays) as url:
        for _ in range(1 if stays else 10):  # what hangs up races with what we send
            with pytest.raises(GatewayError) as refusal:
                GatewayConnection.open(GatewayAddress(url, "t"), device, deadline_s=0.4)
            assert isinstance(refusal.value, PermanentGatewayError | GatewayUnreachable)
    if stays:
        assert isinstance(refusal.value, PermanentGatewayError), refusal.value
        assert str(refusal.value).startswith("what answers at ")
