"""What is printed here are the tables: a line for every request of thousands would bury them."""

from __future__ import annotations

import logging

logging.getLogger("airflow_provider_comet.emulator").setLevel(logging.WARNING)
