"""Main: `python -m asynctrack` is the command `asynctrack`."""

from __future__ import annotations

import sys

from asynctrack.cli import main

sys.exit(main())
