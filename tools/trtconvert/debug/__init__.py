"""Where along a graph its low precision loses the signal."""
