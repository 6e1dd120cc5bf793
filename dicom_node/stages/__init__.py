"""One file per arrow of an exam's way through the node."""
