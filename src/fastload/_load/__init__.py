"""The pipeline: the only room that knows all others.

::

    api ─► request ─► fetch ─► plan for a target ─► run: threads read and place ─► tensors in file order
                                                         schedule: which extent next, up to where is all placed
                                                         sources: readers, open while their shard is being read
                                                         clock: what took how long

:mod:`~fastload._load.stream` hands tensors out one by one, a load is a stream that was collected, and
:mod:`~fastload._load.into` a stream whose memory is a module's own.
"""
