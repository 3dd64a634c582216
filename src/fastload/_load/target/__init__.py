"""The memory that tensors shall live in: fresh, mapped or a module's own; and what is staged on the way there."""
