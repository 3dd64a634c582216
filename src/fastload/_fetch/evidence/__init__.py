"""What is known of the bytes before they are read, and what stays known of them when they were."""
