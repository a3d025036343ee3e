"""`python -m subbyte` is `subbyte`."""

from __future__ import annotations

from subbyte.cli import main

if __name__ == "__main__":
    main()
