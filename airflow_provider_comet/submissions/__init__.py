"""Paid once: what is on record about a create, and what the next attempt may do."""
