"""A shop's log messages, tracked by asynctrack: python examples/logging_handler.py [directory of runs]

pip install asynctrack
"""

import logging
import sys

from asynctrack.integrations.logging import AsyncHandler

logger = logging.getLogger("shop")


def sell(items, total):
    """Sell some items, and say so."""
    try:
        each = total / items
    except ZeroDivisionError:
        logger.exception("an order without items")
    else:
        logger.info("sold %d items", items, extra={"items": items, "each": each})


if __name__ == "__main__":
    handler = AsyncHandler("shop", dir=sys.argv[1] if len(sys.argv) > 1 else "asynctrack_runs")  # the one line
    logging.basicConfig(level=logging.INFO, handlers=[handler, logging.StreamHandler()])
    for items in (3, 5, 0, 2):
        sell(items, total=30.0)
    logging.shutdown()  # Python calls it at the end of the process, too
    print(f"{handler.run.path} has the run")
