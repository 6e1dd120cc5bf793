"""Objects that tests are made of."""
