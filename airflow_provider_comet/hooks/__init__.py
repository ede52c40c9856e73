"""The doors to the API: for workers, and for triggers."""
