"""`python -m service.cli` is `facet`."""

import sys

from service.cli import main

sys.exit(main())
