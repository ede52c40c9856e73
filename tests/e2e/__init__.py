"""Real Airflow processes: the demo, and what tests of whole deployments are built from."""
