"""What is kept where, and taking it away."""
