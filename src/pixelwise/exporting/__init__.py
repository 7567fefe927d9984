"""Trained networks for other runtimes, each with the proof that it answers alike."""
