"""Which bytes go where? The whole load as immutable data, computed before anything is read.

Pure: the executor (``_load``) has nothing left to decide, and a plan can be compared, printed and tested without a
file.
"""
