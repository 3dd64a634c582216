"""Which snapshot is meant, and which tier gives it."""
