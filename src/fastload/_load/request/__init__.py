"""What is asked for: which tensors of a model, as which dtype, which part of them, and for which device."""
