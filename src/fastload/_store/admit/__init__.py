"""The way in: files are staged and digested, a snapshot is published whole or not at all."""
