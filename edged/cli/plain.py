"""What came from outside, a device or a broker, as it may go to a terminal."""

from __future__ import annotations

from collections.abc import Iterable

import click

from edged.config.problems import printable


def say(lines: Iterable[str]) -> None:
    """Print lines. Nothing in them can move the cursor, colour the screen, set its title or make another line."""
    click.echo("\n".join(map(printable, lines)))
