"""What is wrong or lost of a stored copy, had from the next tier: a block under a load, a file for good."""
