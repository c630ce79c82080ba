"""``python -m trtconvert``: the command line."""

from __future__ import annotations

from trtconvert.cli.main import main

if __name__ == "__main__":
    main()
