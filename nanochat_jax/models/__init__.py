"""The model: pure Linen modules, their cache and loss. The only place that imports flax.linen."""
