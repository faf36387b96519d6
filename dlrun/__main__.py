"""`python -m dlrun` is `dlrun`."""

import sys

from dlrun.cli import main

sys.exit(main())
