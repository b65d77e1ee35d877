"""The sandbox's own process and what starts it (`launch`). Plain Python: no package is needed."""
