"""Tasks that wait for predictions."""
