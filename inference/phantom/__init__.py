"""Synthetic radiographs of the left hand, for demonstrations and tests. Not anatomical truth."""
