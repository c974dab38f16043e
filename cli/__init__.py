"""What the commands do with both services, which know nothing of each other."""
