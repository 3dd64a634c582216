"""A checkpoint that was found, its headers read and proven; what a load may do where it was found."""
