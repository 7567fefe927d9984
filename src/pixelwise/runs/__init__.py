"""What is on disk: runs and model folders."""
