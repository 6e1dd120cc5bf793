"""The node: receives hand radiographs by C-STORE and answers with Structured Reports."""
