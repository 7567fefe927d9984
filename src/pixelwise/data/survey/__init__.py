"""What a folder that nobody has described holds, found by looking at its files, and a configuration for it."""
