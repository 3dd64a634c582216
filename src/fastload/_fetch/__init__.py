"""Resolve → admit → verify: everything about a model that needs no torch.

:mod:`~fastload._fetch.resolve` says where a name is, :mod:`~fastload._fetch.warm` brings it up the tiers, and
:mod:`~fastload._fetch.checkpoint` reads the headers of what is there.
"""
