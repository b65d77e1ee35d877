"""Text on disk, and on its way to the model."""
