"""What each process of the test's Airflow sets when it starts, the triggerer too: Airflow imports this module."""

from __future__ import annotations

import os

from airflow_provider_comet.polling import hand_over

__all__: list[str] = []  # nothing here is a setting of Airflow's

hand_over.HAND_OVER_COUNT = int(os.environ["STORE_HAND_OVER_COUNT"])
hand_over.HAND_OVER_SECONDS = float(os.environ["STORE_HAND_OVER_SECONDS"])
hand_over.FIRST_ROUND_SECONDS = float(os.environ["STORE_POKE_INTERVAL"])
hand_over.PAUSE_SECONDS = 2.0  # supervisors report every second here: MIN_HEARTBEAT_INTERVAL in store_run.py
