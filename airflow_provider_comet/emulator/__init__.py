"""An emulator of CometAPI: try a DAG without a key, and test how it copes with errors and broken connections.

It is a program of its own: it imports neither Airflow nor the rest of this package.
"""

from airflow_provider_comet.emulator.runner import Emulator

__all__ = ["Emulator"]
