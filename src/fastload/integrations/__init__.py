"""fastload inside other programs: each a thin adapter over the public functions, and cheap to import.

Nothing here imports its host before the host is there: a plugin's module is imported by every process of it.
"""
