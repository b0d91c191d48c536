"""Prints the pins for a venv over a vendor's base: its own versions, and ours for what it lacks."""

import importlib.metadata
import re
import sys
from pathlib import Path


def canonical(name: str) -> str:
    """The name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Read our pins from the file named, print the merged ones."""
    pins = {}
    for line in Path(sys.argv[1]).read_text().splitlines():
        name, equals, version = line.partition("==")
        if equals and not line.startswith("#"):
            pins[canonical(name)] = version
    for found in importlib.metadata.distributions():
        pins[canonical(found.metadata["Name"])] = found.version
    for name, version in sorted(pins.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
