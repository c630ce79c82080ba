"""Engine back ends; each imports its library lazily, in its own file only."""
