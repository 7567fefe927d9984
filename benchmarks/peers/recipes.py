"""Peers' networks, trained as their own documentation trains them."""

PEERS = {}
