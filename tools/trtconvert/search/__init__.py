"""Finds the cheapest nodes to raise to a wider precision, so that the answers hold."""
