"""Flows: which readings go to which connection, and what is done to them on the way."""
