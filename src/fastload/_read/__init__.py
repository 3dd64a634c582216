"""How do bytes leave storage? Readers fill buffers they are given, and say so when they cannot.

A reader serves one open file. It moves bytes and nothing else: where they go is the plan's, whether they are right the
verifier's. ``auto`` (``choose.py``) decides per file and falls back only on the one error that says "not here".
"""
