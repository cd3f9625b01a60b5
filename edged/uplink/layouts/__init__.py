"""Layouts of a payload beside edged's own JSON. Pure."""
