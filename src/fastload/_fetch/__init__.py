"""Resolve → admit → verify: everything about a model that needs no torch.

::

    api                                 keywords become a request
    warm/  verify/  keep/               bring a model up · check what is stored · take it away
    checkpoint/                         what is loaded: found, its headers read and proven
    mend/                               wrong and lost bytes, from the next tier
    bring/  evidence/                   one offer into one root · what is known of the bytes
    find/                               which snapshot is meant, and which tier gives it
    deadline, workers, pace             when to give up, by whom, and how fast

Each imports from those below it.
"""
