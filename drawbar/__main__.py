"""`python -m drawbar`: the command line."""

from __future__ import annotations

import sys

from drawbar.cli import main

sys.exit(main())
