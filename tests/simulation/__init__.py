"""A deterministic simulation: the product's own code in a world of its own, one story at a time.

``README.md`` in this folder says how to use it, and how it is made.
"""
