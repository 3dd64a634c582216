"""One offer into one root: all of it by itself, or what a load reads as it passes."""
