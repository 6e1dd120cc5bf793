"""The centre: pseudonymous metadata of all regions in one PostgreSQL."""
