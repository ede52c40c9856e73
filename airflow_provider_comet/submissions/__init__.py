"""Paid once: the record of each create, and what the next attempt may do."""
