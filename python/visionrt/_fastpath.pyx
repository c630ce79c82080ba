# cython: language_level=3, boundscheck=False, wraparound=False
"""Per-call glue that is too slow in plain Python."""
