"""Locks that tell the truth, leases that save transfers, and what is in use."""
