"""``fastload doctor``: which way a load would take here, why, and what stands in it.

::

    /proc, statvfs, packages ─► facts ─► judges (pure) ─► findings: what, why it matters, what mends it

Whoever parses or judges does no I/O, so that each case is a line of text in a test. Whoever looks asks each tier on a
thread of its own and waits for all of them together, since a dead mount never answers.
"""
