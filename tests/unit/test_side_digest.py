"""The digest that is made beside the work."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_comet.side_digest import WORTH_A_THREAD_BYTES, SideDigest


@pytest.mark.parametrize("sizes", [[], [1], [WORTH_A_THREAD_BYTES], [3, WORTH_A_THREAD_BYTES, 5, 4_000_000, 1, 70_000]])
def test_it_is_that_of_all_blocks_in_order(sizes: list[int]) -> None:
    """Whatever the blocks' sizes: small ones do not overtake large ones."""
    blocks = [random.Random(size).randbytes(size) for size in sizes]
    with ThreadPoolExecutor() as pool:
        made = SideDigest(pool)
        for block in blocks:
            made.update(block)
        assert made.hexdigest() == hashlib.sha256(b"".join(blocks)).hexdigest()
        made.update(b"more")
        assert made.digest() == hashlib.sha256(b"".join([*blocks, b"more"])).digest()


def test_many_at_once() -> None:
    """Several files share the threads, and each has its own digest."""
    block = bytes(1_000_000)
    with ThreadPoolExecutor(2) as pool:
        made = [SideDigest(pool) for _ in range(8)]
        for count in range(3):
            for number, one in enumerate(made):
                one.update(block[: 500_000 + number + count])
        for number, one in enumerate(made):
            whole = b"".join(block[: 500_000 + number + count] for count in range(3))
            assert one.hexdigest() == hashlib.sha256(whole).hexdigest()
