"""What our client makes of a gateway that is away, goes away, or is far away (rules.md 44).

``pytest -rP`` prints the sentences. These come last: the gateway is stopped and started once more.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conformance.conftest import OWNERS_VARIABLES, Target
from tests.conformance.steps import eventually
from tests.conformance.tampering_proxy import Instead, closing, ignoring, tampering_proxy, vanishing
from tests.conformance.visitor import Visitor, read
from worker.gateway import errors
from worker.lab.openclaw import OpenClaw
from worker.lab.simulator import Simulator

WRITE, WHAT = "sessions.patch", {"key": "agent:nobody:main"}
"""A call of which it matters whether it was carried out."""
CLOSES: dict[str, tuple[Callable[[str], Instead], str, type[errors.GatewayError]]] = {
    "1001": (lambda method: closing(method, 1001, "going away"), "1001", errors.GatewayUnreachable),
    "1012": (lambda method: closing(method, 1012, "service restart"), "1012", errors.GatewayRestarting),
    "1013": (lambda method: closing(method, 1013, "try again later"), "1013", errors.GatewayRestarting),
    "no close frame": (vanishing, "close", errors.GatewayUnreachable),
    "reset": (lambda method: vanishing(method, reset=True), "close", errors.GatewayUnreachable),
}


@pytest.mark.parametrize("how", CLOSES)
def test_a_connection_that_ends_before_the_hello_was_not_used(target: Target, how: str) -> None:
    ending, says, expected = CLOSES[how]
    with (
        tampering_proxy(target.url, instead=ending("connect")) as url,
        Visitor.to(target, url=url) as visitor,
    ):
        error = visitor.refused(says=(says, "log"))
    assert type(error) is expected


@pytest.mark.parametrize("how", CLOSES)
def test_a_connection_that_ends_under_a_call_leaves_open_what_became_of_it(target: Target, how: str) -> None:
    ending, says, _ = CLOSES[how]
    with tampering_proxy(target.url, instead=ending(WRITE)) as url, Visitor.to(target, url=url) as visitor:
        error = visitor.refused(WRITE, WHAT, says=(says, WRITE, "unknown", "log"))
    assert type(error) is errors.ConnectionLost


def test_a_connection_that_ends_under_a_read_leaves_nothing_open(target: Target) -> None:
    ending, says, _ = CLOSES["1012"]
    with (
        tampering_proxy(target.url, instead=ending("config.get")) as url,
        Visitor.to(target, url=url) as visitor,
    ):
        error = visitor.refused(says=(says, "config.get", "log"))
    assert type(error) is errors.ConnectionLost
    assert "unknown" not in str(error)


@pytest.mark.parametrize(
    ("ignored", "expected", "says"),
    [
        (WRITE, errors.CallTimedOut, (f"did not answer {WRITE} in time", "unknown")),
        ("connect", errors.GatewayUnreachable, ("sent no hello in time",)),
    ],
)
def test_our_own_deadline_is_transient(
    target: Target, ignored: str, expected: type[errors.GatewayError], says: tuple[str, ...]
) -> None:
    with (
        tampering_proxy(target.url, instead=ignoring(ignored)) as url,
        Visitor.to(target, url=url) as visitor,
    ):
        if ignored != "connect":
            visitor.client.hello()
        error = visitor.refused(WRITE, WHAT, says=says, deadline_s=0.5)
    assert type(error) is expected


def test_tls_to_a_plain_port_shows_the_url_to_write(target: Target) -> None:
    with Visitor.to(target, url=target.url.replace("ws:", "wss:")) as visitor:
        error = visitor.refused(says=("TLS", "ws://"))
    if target.real:  # a simulated one hangs up where a real one answers in plain HTTP
        assert type(error) is errors.PermanentGatewayError


@dataclass(frozen=True)
class Outage:
    """What was said to one call in flight, and to all who knocked until they were let in again."""

    lost: errors.GatewayError
    told: tuple[errors.GatewayError, ...]


@pytest.fixture(scope="module")
def outage(target: Target) -> Outage:
    """One stop and start. Afterwards a real gateway believes what a proxy on this machine says of clients; up
    to 2026.3 it then takes all for clients from elsewhere, so what follows must be about those."""
    reconnecting = _Reconnecting(target)
    with reconnecting:
        with _in_flight(target) as lost:
            target.process.stop()
        if isinstance(target.process, Simulator):
            says_so = target.expected.explains_errors
            target.process.timings = replace(target.process.timings, starting_s=0.5 if says_so else 0.0)
        else:
            config = target.stored_config()
            config["gateway"]["trustedProxies"] = ["127.0.0.1"]
            (target.state_dir / "openclaw.json").write_text(json.dumps(config))
        assert reconnecting.refused.wait(target.timeout_s)
        target.process.start()
        reconnecting.let_in.clear()
        assert reconnecting.let_in.wait(target.timeout_s)
    return Outage(lost[0], tuple(reconnecting.told.values()))


class _Reconnecting:
    """Tries to get in, again and again, each time as a new client, and keeps what it is told."""

    def __init__(self, target: Target) -> None:
        self.told: dict[str, errors.GatewayError] = {}
        self.refused = threading.Event()
        self.let_in = threading.Event()
        self._target = target
        # A real one that starts has its hands full; a simulated one is back in no time.
        self._every_s = 0.3 if target.real else 0.02
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_connecting)

    def __enter__(self) -> _Reconnecting:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep_connecting(self) -> None:
        while not self._over.wait(self._every_s):
            with Visitor.to(self._target) as visitor:
                try:
                    visitor.client.call("config.get", deadline_s=10)
                except errors.TransientGatewayError as error:
                    self.told.setdefault(str(error), error)
                    if "Connection refused" in str(error):
                        self.refused.set()
                    continue
                except errors.PairingRequired:
                    pass
                self.let_in.set()


@contextmanager
def _in_flight(target: Target) -> Iterator[list[errors.GatewayError]]:
    """A call that the gateway never sees, so that it is still in flight when the gateway goes."""
    lost: list[errors.GatewayError] = []
    with tampering_proxy(target.url, instead=ignoring(WRITE)) as url, Visitor.to(target, url=url) as visitor:

        def wait() -> None:
            try:
                visitor.client.call(WRITE, WHAT, deadline_s=30)
            except errors.GatewayError as error:
                lost.append(error)

        connection = visitor.client.connection()
        waiting = threading.Thread(target=wait)
        waiting.start()
        try:
            eventually(lambda: connection.in_flight, 5)
            yield lost
        finally:
            waiting.join()
        read(lost[0], url, "1012", WRITE, secret=target.token, release=target.release)


def test_a_call_in_flight_at_a_stop_may_have_been_carried_out(outage: Outage) -> None:
    assert type(outage.lost) is errors.ConnectionLost
    assert "unknown" in str(outage.lost)


def test_all_that_is_said_while_a_gateway_is_away_is_transient(target: Target, outage: Outage) -> None:
    for error in outage.told:
        read(error, target.url, secret=target.token, release=target.release)
        assert isinstance(error, errors.TransientGatewayError)
    refused = [error for error in outage.told if "Connection refused" in str(error)]
    assert {type(error) for error in refused} == {errors.GatewayUnreachable}
    assert all("check that it runs" in str(error) for error in refused)


def test_a_gateway_that_is_starting_says_for_how_long_to_wait(target: Target, outage: Outage) -> None:
    starting = [error for error in outage.told if "gateway starting" in str(error)]
    if not target.expected.explains_errors:
        assert not starting
        return
    assert {type(error) for error in starting} == {errors.GatewayRestarting}
    assert {getattr(error, "retry_after_s", None) for error in starting} == {0.5}


@dataclass(frozen=True)
class RemoteClient:
    """The target as a client on another machine meets it. ``type_in``: what its owner does with a command."""

    open: Callable[[], Visitor]
    type_in: Callable[[list[str]], None]


@pytest.fixture
def remote_client(target: Target, outage: Outage, tmp_path: Path) -> Iterator[RemoteClient]:
    with ExitStack() as stack:
        if isinstance(target.process, Simulator):
            simulator = Simulator(target.release, token=target.token, state_dir=tmp_path, remote=True)
            stack.enter_context(simulator)
            url = simulator.url

            def type_in(arguments: list[str]) -> None:
                simulator.approve_devices()
        else:
            url = stack.enter_context(tampering_proxy(target.url, headers={"X-Forwarded-For": "203.0.113.9"}))

            def type_in(arguments: list[str]) -> None:
                _run_openclaw(target, arguments)

        yield RemoteClient(lambda: stack.enter_context(Visitor.to(target, url=url)), type_in)


def _run_openclaw(target: Target, arguments: list[str]) -> None:
    installed, state = OpenClaw.install(target.release), target.state_dir
    environment = {
        **OWNERS_VARIABLES,
        "PATH": f"{installed.node.parent}{os.pathsep}{os.defpath}",
        "HOME": str(state / "home"),
        "OPENCLAW_STATE_DIR": str(state),
        "OPENCLAW_CONFIG_PATH": str(state / "openclaw.json"),
        "OPENCLAW_NO_RESPAWN": "1",
    }
    command = [str(installed.node), str(installed.script), *arguments]
    try:
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=target.timeout_s
        )
    except subprocess.TimeoutExpired:
        return  # 2026.2.12's sometimes never ends when its work is done; whether it was done, the caller sees
    assert ran.returncode == 0, ran.stderr


def test_an_unknown_device_gets_the_command_that_lets_it_in(remote_client: RemoteClient) -> None:
    visitor = remote_client.open()
    error = visitor.refused(says=("openclaw devices approve", visitor.device.device_id))
    assert isinstance(error, errors.PairingRequired)
    (command,) = re.findall(r"run `openclaw ([^`]+)`", str(error))
    assert command == f"devices approve {error.request_id}"
    remote_client.type_in(command.split())
    assert visitor.client.call("config.get")["hash"]


def test_ten_wrong_tokens_lock_the_right_one_out_and_it_says_until_when(
    target: Target, remote_client: RemoteClient
) -> None:
    if isinstance(target.process, Simulator) or not target.expected.locks_out:
        pytest.skip("only 2026.9.6 counts wrong tokens; test_7 shows the refusal for the others")
    headers = {"X-Forwarded-For": "203.0.113.77"}
    with tampering_proxy(target.url, headers=headers) as url:
        for _ in range(10):
            with Visitor(url, "wrong-hush-hush", release=target.release) as stranger:
                stranger.refused()
        with Visitor.to(target, url=url) as visitor:
            error = visitor.refused(says=("locks our address out", "wrong token"))
    assert isinstance(error, errors.RateLimited)
    if not target.expected.explains_errors:  # 2026.7.1 does not say when
        assert error.retry_after_s is None
        return
    assert error.retry_after_s is not None
    assert 200 < error.retry_after_s <= 300
