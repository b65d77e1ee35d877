"""CORE: 22 tasks in context, the original's numbers, many examples a forward pass."""
