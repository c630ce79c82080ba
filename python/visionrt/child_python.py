"""How to run this package's code in a fresh interpreter, which may crash without harm here."""

from __future__ import annotations

import os
import sys


def child_python(code: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a Python that runs ``code`` and imports what this one can."""
    # This interpreter may have been given paths that a fresh one does not know.
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    return [sys.executable, "-c", code], environment
