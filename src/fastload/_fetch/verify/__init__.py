"""``verify``: all that is stored of a model, by the best that is known of it."""
