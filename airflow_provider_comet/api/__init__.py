"""What CometAPI says and what we do about it: pure functions and values. No I/O, no Airflow, no HTTP library."""
