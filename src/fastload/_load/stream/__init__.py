"""A job is carried out: tensors are handed out one by one, up to the end and the report."""
