"""A load that several ranks carry out together.

::

    join ─► agree on what is wanted ─► fetch: the commit once ─► divide ─► exchange while reading ─► end

Before the first byte is read, all ranks have compared what they are about to do. From then on each one reads and proves
its share, and sends it on by :mod:`~fastload._load.read.exchange` (:mod:`fastload._group` has the connections,
:mod:`fastload._plan` the division). One process that loads by itself is a group of one.
"""
