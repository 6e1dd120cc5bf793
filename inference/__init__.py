"""Pixels and models; knows nothing of the node."""
