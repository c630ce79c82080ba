"""``python -m visionrt`` is the same as ``visionrt``."""

from visionrt.cli.main import main

if __name__ == "__main__":
    main()
