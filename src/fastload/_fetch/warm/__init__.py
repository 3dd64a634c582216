"""``warm``: a model up to a tier, once, however many ask for it."""
