"""Links that operators add to a task in Airflow's UI."""
