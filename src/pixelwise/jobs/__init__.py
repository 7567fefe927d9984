"""One file per verb; each holds the whole job in one function that can be read from top to bottom."""
