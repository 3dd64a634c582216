"""Extents, one after another, from storage, past the host or from other ranks; and on to who places them."""
