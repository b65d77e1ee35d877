"""The embedded world: a small, made-up valley to learn from raw text, and to be examined about."""
