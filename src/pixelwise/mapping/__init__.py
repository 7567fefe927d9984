"""Maps of scenes that are larger than memory."""
