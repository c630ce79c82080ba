"""Reads engine files and runs them: an image goes in, classes, boxes or masks come out."""
