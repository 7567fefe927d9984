"""Exported files: what they say of themselves, the runtimes that open them, and one in the place of a network."""
