"""Values and decisions; standard library only."""
