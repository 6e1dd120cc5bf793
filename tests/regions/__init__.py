"""The region map: a centre and four regions on one machine, for the time of a demonstration."""
