"""What several test files need. Imports neither Airflow nor the package: `tests/unit/api` runs without Airflow."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile


@functools.cache
def private_airflow() -> str:
    """Give this process an Airflow of its own, before the first import of Airflow reads the environment.

    :returns: its AIRFLOW_HOME, removed when the process ends.
    """
    # The settings, connections and proxies of whoever runs the tests are none of the tests' business.
    for name in [*os.environ]:
        if name.startswith(("AIRFLOW_", "COMETAPI_")) or name.lower() in {
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "requests_ca_bundle",
            "curl_ca_bundle",
            "netrc",
        }:
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="comet-airflow-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update({
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",  # it would replace the settings that users have
        "NO_COLOR": "1",
    })
    return home
