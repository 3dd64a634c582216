"""``fastload warm --list FILE --every TIME``: keep what a list names on this machine, for as long as the process lives.

::

    read the list ─► warm each ─► recheck ─► prune ─► tell, and say that it is ready ─► sleep ─► …

A round that fails in part is told and followed by the next one: a warmer of a fleet must outlive a hub that is away.
"""
