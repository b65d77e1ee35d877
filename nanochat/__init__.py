"""The original's package: its commands and imports answer with ours (config/old_words.py)."""

import scripts  # noqa: F401  (which finds the modules of this name)
