"""Where time and memory go: by stage of the whole path, and by layer of the network."""
