"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The installed version, or ``0+source`` when run from a source tree."""
    try:
        return version("trtconvert")
    except PackageNotFoundError:
        return "0+source"
