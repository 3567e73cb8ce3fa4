"""``python -m worker.lab.simulator``: the simulated gateway as a process of its own."""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path

from worker.lab.simulator import MEASURED, QUICK, RELEASES, Simulator
from worker.lab.simulator.fault_file import faults_in


def main() -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the faults again. Prints the address once it listens."""
    options = _parser().parse_args()
    token = options.token_file.read_text(encoding="utf-8").strip()
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with tempfile.TemporaryDirectory(prefix="simulator-") as spare:
        simulator = Simulator(
            options.release,
            token=token,
            state_dir=options.state_dir or Path(spare),
            port=options.port,
            timings=MEASURED[options.release] if options.timings == "measured" else QUICK,
            reply=options.reply,
            journal=options.journal,
        )
        _schedule_faults(simulator, options.faults)
        with simulator:
            print(f"OpenClaw {options.release}, simulated, on {simulator.url}", flush=True)
            while signal.sigwait(signals) == signal.SIGHUP:
                _schedule_faults(simulator, options.faults)


def _schedule_faults(simulator: Simulator, path: Path | None) -> None:
    """Schedule the faults in that file and no others. An invalid one ends the process."""
    if path is None:
        return
    try:
        simulator.faults.replace(faults_in(path))
    except (OSError, ValueError) as error:
        raise SystemExit(f"--faults: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.lab.simulator", description=main.__doc__)
    parser.add_argument("--release", choices=list(RELEASES), default="2026.9.6")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token-file", type=Path, required=True, help="file that holds the gateway's token")
    parser.add_argument(
        "--state-dir", type=Path, help="keeps its state; default: a folder that is deleted at the end"
    )
    parser.add_argument("--pace", dest="timings", choices=["quick", "measured"], default="quick")
    parser.add_argument("--reply", help="what every agent's model answers; default: no model")
    parser.add_argument(
        "--journal", type=Path, help="append every call, config write and restart as JSON lines"
    )
    parser.add_argument(
        "--faults",
        type=Path,
        help="JSON list of faults (worker/lab/simulator/fault_file.py); read again on SIGHUP, which also "
        "releases what the earlier ones hold; the journal tells each that happens",
    )
    return parser


if __name__ == "__main__":
    main()
