"""Independent ways to the same results, which tests compare the node with."""
