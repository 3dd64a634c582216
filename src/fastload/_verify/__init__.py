"""Which bytes are right? Digests of blocks and files, and the manifest that lists them.

Pure: takes bytes, returns values or raises. Who reads the bytes, and what a wrong one means, is decided elsewhere.
"""
