"""A search for better values of a configuration: what is tried, the trials, and the page that shows them."""
