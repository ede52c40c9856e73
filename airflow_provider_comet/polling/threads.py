"""The threads of a task, and what they wait for.

Tests replace these names, and no others, as they do with the time (``polling/clock.py``). Then only one thread runs at
a time, in an order that the test decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures

Pool = futures.ThreadPoolExecutor
Future = futures.Future
Lock = threading.Lock
wait = futures.wait


def start(target: Callable[[], object], name: str) -> None:
    """Run a function in a thread of its own."""
    threading.Thread(target=target, name=name).start()


def is_main() -> bool:
    """Return whether this is the thread that Python delivers signals to."""
    return threading.current_thread() is threading.main_thread()
