"""Prepare, train, evaluate and export a network (torch, MONAI)."""
