"""`python -m airflow_provider_comet.emulator`: run CometAPI on your own machine until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from airflow_provider_comet.emulator.pictures import require_pillow
from airflow_provider_comet.emulator.runner import Emulator


def seconds(text: str) -> float:
    """Parse an option that is a duration in seconds."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return value


def seconds_or_range(text: str) -> float | tuple[float, float]:
    """Parse a duration in seconds, or the shortest and the longest: `5-240`."""
    shortest, dash, longest = text.partition("-")
    if not dash or not shortest:
        return seconds(text)
    if seconds(shortest) > seconds(longest):
        raise argparse.ArgumentTypeError("must begin with the shorter duration")
    return seconds(shortest), seconds(longest)


def port(text: str) -> int:
    """Parse a port; 0 stands for any free port."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be between 0 and 65535")
    return value


def count(text: str) -> int:
    """Parse a positive whole number."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(prog="python -m airflow_provider_comet.emulator", description=__doc__)
    options.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    options.add_argument(
        "--port", type=port, default=8765, help="port to listen on, 0 for any free port (default: %(default)s)"
    )
    options.add_argument(
        "--api-key", default="sk-emulator", help="the only key that is accepted (default: %(default)s)"
    )
    options.add_argument(
        "--wire", choices=["flat", "wrapped"], default="flat", help="shape of query answers (default: %(default)s)"
    )
    options.add_argument(
        "--duration",
        type=seconds_or_range,
        metavar="SECONDS",
        help="how long every prediction takes, or the shortest and the longest: 5-240",
    )
    options.add_argument(
        "--retention",
        type=seconds,
        default=3600.0,
        metavar="SECONDS",
        help="how long after completion outputs can be fetched (default: %(default)s)",
    )
    options.add_argument(
        "--link-seconds",
        type=seconds,
        metavar="SECONDS",
        help="how long the links of an answer can be used; each query has new ones (default: the retention)",
    )
    options.add_argument(
        "--creates-per-second", type=count, metavar="COUNT", help="answer 429 to creates above it (default: no limit)"
    )
    options.add_argument(
        "--file-bytes", type=count, default=0, metavar="BYTES", help="pad the pictures to files of at least this size"
    )
    options.add_argument("--quiet", action="store_true", help="do not log each request")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM and return the exit code."""
    options = parser().parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if not options.quiet:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    emulator = Emulator(
        host=options.host,
        port=options.port,
        wire=options.wire,
        duration=options.duration,
        retention=options.retention,
        link_seconds=options.link_seconds,
        api_key=options.api_key,
        creates_per_second=options.creates_per_second,
        file_bytes=options.file_bytes,
    )
    try:
        require_pillow()
        emulator.start()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        reason = error.strerror or error
        print(f"cannot listen on {options.host} port {options.port}: {reason}. Try another --port.", file=sys.stderr)
        return 1
    connection = shlex.quote(emulator.connection_json())
    print(f"CometAPI emulator at {emulator.base_url} (Ctrl-C stops it). The key is {emulator.api_key}")
    print("To point Airflow at it:")
    print(f"  export AIRFLOW_CONN_COMETAPI_DEFAULT={connection}", flush=True)
    try:
        stop.wait()
    finally:
        emulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
