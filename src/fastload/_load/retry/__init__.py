"""What is begun once more, where a file turns out wrong at its end."""
