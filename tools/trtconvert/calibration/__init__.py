"""Activation ranges from images."""
