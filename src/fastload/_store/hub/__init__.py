"""The hub as a tier: listing, access, and files read by ranges over HTTP."""
