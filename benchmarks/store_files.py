"""A fresh task process that stores files: ``python -m benchmarks.store_files BASE_URL FOLDER COUNT``.

It prints one line of JSON: seconds, and its peak memory (``ru_maxrss``) before and after.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from tests.support import private_airflow


def main(url: str, folder: str, count: int) -> None:
    """Store a prediction with ``count`` files."""
    private_airflow()
    connection = {"conn_type": "cometapi", "host": url, "password": "sk-outputs-0123456789"}
    os.environ["AIRFLOW_CONN_COMETAPI_DEFAULT"] = json.dumps(connection)
    if authority := os.environ.get("STORE_CA"):
        os.environ["REQUESTS_CA_BUNDLE"] = authority
    if store := os.environ.get("STORE_CONNECTION"):
        os.environ["AIRFLOW_CONN_STORE"] = store
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.api.prediction import Prediction
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.outputs.download import Downloader
    from airflow_provider_comet.outputs.writer import OutputWriter

    hook = CometReplicateHook()
    path = ObjectStoragePath(folder)
    path.exists()  # loads the file system's library
    output = [f"{url}/{number}.mp4" for number in range(count)]
    summary = Prediction("abc", "succeeded", output=output).summary()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    identity = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
    with (
        Downloader(hook.config) as downloader,
        OutputWriter(
            path, hook.get_prediction, downloader, max_bytes=1 << 40, write_input=False, stored_by=identity
        ) as writer,
    ):
        writer.store(summary)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": took, "before_mb": before / 1024, "peak_mb": after / 1024}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
