"""Run CometAPI's image, video and text models from Apache Airflow."""

__version__ = "0.1.0"
