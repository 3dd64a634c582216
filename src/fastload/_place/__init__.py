"""How do bytes become tensors? Memory of the right kind, and tensors that behave like any others.

A *placer* hands out buffers for an extent, is told when they are filled, and makes tensors of what is complete.
Everything that knows torch or a device is here.
"""
