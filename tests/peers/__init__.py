"""The real programs that tests talk to, as context managers."""
