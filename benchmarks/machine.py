"""Describe the machine and the versions with which the figures were measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.report import Table

PACKAGES = (
    "airflow-provider-comet",
    "apache-airflow-core",
    "apache-airflow-task-sdk",
    "apache-airflow-providers-http",
    "apache-airflow-providers-openai",
    "apache-airflow-providers-dbt-cloud",
    "aiohttp",
    "requests",
)


def describe() -> Table:
    """Return machine, versions and date as a table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Table(
        ["measured", ""],
        [
            ["date", f"{datetime.now(UTC):%Y-%m-%d}"],
            ["cores", f"{os.cpu_count()} ({_processor()})"],
            ["memory", f"{memory:.0f} GB"],
            ["kernel", f"{platform.system()} {platform.release()}"],
            ["Python", f"{platform.python_implementation()} {platform.python_version()}"],
            *([package, _version(package)] for package in PACKAGES),
            ["load when it began", f"{os.getloadavg()[0]:.1f}"],
        ],
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:  # not Linux: only the name of the processor is missing
        pass
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
