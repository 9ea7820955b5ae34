"""The same orders for Darkroom: each started by the product's own statement. Its worker is `bench.worker`."""

import time

from bench.photos import start_sets
from bench.rivals.orders import say


def prepare(dsn: str, folder: str, orders: str, pause_seconds: str) -> None:
    """The database has its paid customers; their sets are started one after the other."""
    del folder
    say("ready")
    for _ in range(int(orders)):
        start_sets(dsn, 1)
        time.sleep(float(pause_seconds))
