"""Who else loads this, and how do bytes get from rank to rank?

::

    rendezvous ─► mesh of sockets ─► control channel: values of all, heartbeats, failures
                                 └─► links: extents, in order

A *rank* is one process of a group, a *peer* any other rank of it. The ranks find each other through the store of the
caller's process group and have sockets of their own from then on: nothing of ours ever runs on the caller's group, so
it stays usable whatever happens to a load (docs/adr/0012).
"""
