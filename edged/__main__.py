"""`python -m edged`."""

from __future__ import annotations

from edged.cli import main

if __name__ == "__main__":
    main()
