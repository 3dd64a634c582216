"""Which shards are proven and by what, and what is said of it."""
