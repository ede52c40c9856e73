"""The network: one client for workers, one for triggers."""
