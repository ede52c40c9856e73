"""``@task.comet_prediction``."""
