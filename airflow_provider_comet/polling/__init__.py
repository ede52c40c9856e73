"""When to ask, how fast, and what to say meanwhile."""
