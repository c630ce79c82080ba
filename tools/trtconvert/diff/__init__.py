"""What differs between the answers of two engines, by class and by image."""
