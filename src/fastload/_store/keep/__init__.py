"""Room on the local tier, and what goes when there is none: eviction, removal, pins."""
