"""The table of networks, with their papers."""
