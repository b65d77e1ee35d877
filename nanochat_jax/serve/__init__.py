"""Talking to a model: decoding, the engine, tools, and the server."""
