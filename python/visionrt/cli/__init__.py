"""The runtime command line."""
