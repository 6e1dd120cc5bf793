"""The node: receives hand radiographs by C-STORE and answers with Structured Reports."""

__version__ = "0.1.0"
