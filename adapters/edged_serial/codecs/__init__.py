"""The pure half of the serial adapter: bytes in, values out, and back. Knows no port and no clock."""
