"""``python -m worker.simulator``: the simulated gateway as a process of its own."""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path

from worker.simulator import MEASURED, QUICK, RELEASES, Simulator


def main() -> None:
    """Serve until SIGTERM or SIGINT. Prints one line with the address once it listens."""
    options = _parser().parse_args()
    token = options.token_file.read_text(encoding="utf-8").strip()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with tempfile.TemporaryDirectory(prefix="simulator-") as spare:
        simulator = Simulator(
            options.release,
            token=token,
            state_dir=options.state_dir or Path(spare),
            port=options.port,
            pace=MEASURED[options.release] if options.pace == "measured" else QUICK,
            reply=options.reply,
            journal=options.journal,
        )
        with simulator:
            print(f"OpenClaw {options.release}, simulated, on {simulator.url}", flush=True)
            signal.sigwait({signal.SIGTERM, signal.SIGINT})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.simulator", description=main.__doc__)
    parser.add_argument("--release", choices=list(RELEASES), default="2026.9.6")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token-file", type=Path, required=True, help="file that holds the gateway's token")
    parser.add_argument(
        "--state-dir", type=Path, help="keeps its state; default: a folder that is deleted at the end"
    )
    parser.add_argument("--pace", choices=["quick", "measured"], default="quick")
    parser.add_argument("--reply", help="what every agent's model answers; default: no model")
    parser.add_argument(
        "--journal", type=Path, help="append every call, config write and restart as JSON lines"
    )
    return parser


if __name__ == "__main__":
    main()
