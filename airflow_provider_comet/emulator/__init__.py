"""CometAPI on your own machine: try a DAG without a key, and test what happens when the network misbehaves.

A program of its own: it imports nothing else of this package, and no Airflow.
"""

from airflow_provider_comet.emulator.runner import Emulator

__all__ = ["Emulator"]
