"""Hospitals that send to a real node with a real archive: loads, a day with accidents."""
