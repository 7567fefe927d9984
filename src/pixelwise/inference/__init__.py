"""One image through a network, tile by tile."""
