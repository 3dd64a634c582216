"""The pipeline: the only room that knows all others.

::

    api ─► request ─► fetch ─► plan for a target ─► run: threads read and place ─► tensors in file order
                                                         schedule: which extent next, up to where is all placed
                                                         sources: readers, open while their shard is being read
                                                         clock: what took how long

:mod:`~fastload._load.stream` hands out the tensors of a :mod:`~fastload._load.job` one by one, up to its
:mod:`~fastload._load.ending`; a load is a stream that was collected, and :mod:`~fastload._load.into` one whose memory
is a module's own.
"""
