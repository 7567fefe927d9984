"""Scores of a model, and what it sees."""
