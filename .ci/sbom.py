"""What edged is made of, as CycloneDX JSON: `sbom.py [FILE]`. Everything in requirements.lock, with what is known here.

CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/). The same lock yields the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from licences import licence
from package import epoch, requirements

from edged import __version__

ROOT = Path(__file__).parents[1]
_NAMESPACE = uuid.UUID("3f4b5d0e-6a0f-5a5b-9d0c-7c0e5d9ed6ed")


def locked() -> dict[str, str]:
    """Package → version, of the whole lock."""
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", lock, re.MULTILINE))


def purl(name: str, version: str) -> str:
    """The package's name for the world (https://github.com/package-url/purl-spec)."""
    return f"pkg:pypi/{name}@{version}"


def component(name: str, version: str, shipped: frozenset[str]) -> dict[str, Any]:
    """One package. `required` is what gateways get, `excluded` what only builds or tests edged."""
    record: dict[str, Any] = {
        "type": "library", "bom-ref": purl(name, version), "name": name, "version": version,
        "purl": purl(name, version), "scope": "required" if f"{name}=={version}" in shipped else "excluded",
    }  # fmt: skip
    try:
        said = licence(distribution(name))
    except PackageNotFoundError:
        said = ""
    if said:
        record["licenses"] = [{"license": {"name": said.splitlines()[0][:200]}}]
    return record


def sbom() -> dict[str, Any]:
    """The document."""
    packages = locked()
    shipped = frozenset(requirements())
    serial = uuid.uuid5(_NAMESPACE, json.dumps([__version__, packages]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch(), UTC).isoformat(),
            "component": {
                "type": "application", "bom-ref": purl("edged", __version__), "name": "edged", "version": __version__,
                "purl": purl("edged", __version__), "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": [component(name, version, shipped) for name, version in sorted(packages.items())],
        "dependencies": [
            {"ref": purl("edged", __version__), "dependsOn": sorted(purl(*one.split("==")) for one in shipped)}
        ],
    }  # fmt: skip


if __name__ == "__main__":
    text = json.dumps(sbom(), indent=1) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(sys.argv[1]).write_text(text, "utf-8")
    else:
        print(text, end="")
