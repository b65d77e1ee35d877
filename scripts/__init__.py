"""Programs: each parses its config and calls one function."""
