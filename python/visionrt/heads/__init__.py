"""One decoder per head (layout of raw outputs)."""
