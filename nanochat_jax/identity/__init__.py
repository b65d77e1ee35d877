"""Conversations in which a model says who it is, from a file of facts; see `make`."""
