"""One process of a rival.

`python -m bench.rivals NAME prepare DSN FOLDER ORDERS PAUSE_SECONDS` starts orders; it prints a line when
everything is there and they begin. `python -m bench.rivals NAME work DSN FOLDER PROVIDER_URL` makes their
photos; it prints a line when it works. Each rival's module is imported under its own name, as its users do.
"""

import importlib
import sys
from typing import Any


def _main(name: str, role: str, *arguments: str) -> None:
    rival: Any = importlib.import_module(f"bench.rivals.{name}")
    getattr(rival, role)(*arguments)


if __name__ == "__main__":
    _main(*sys.argv[1:])
