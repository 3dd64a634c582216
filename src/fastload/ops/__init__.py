"""What operators run beside a load: measuring, and later looking after it. Nothing below imports this room."""
