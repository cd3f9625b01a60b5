"""The forms in which a secret may stand somewhere."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote


def written(secret: str) -> list[str]:
    """As it is, and as URLs, JSON, base64 and hexadecimal digits have it."""
    data = secret.encode()
    return [
        secret,
        quote(secret),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        data.hex(),
        *(base64.b64encode(b"x" * n + data).decode()[-(-8 * n // 6) : 8 * (n + len(data)) // 6] for n in range(3)),
    ]


def found(secret: str, content: str) -> list[str]:
    """Those of them that are there."""
    return [form for form in written(secret) if form in content]
