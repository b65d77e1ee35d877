"""Programs compiled for GPUs on a machine that has none, read, and timed by what they must do.

XLA needs a description of a card, not the card: what it would run there can be asked for its
memory, its kernels and its collectives. `scripts.roofline` prints that, `tests/gpu` holds the
shipped configs to it. Needs JAX's CUDA plugin (`make test-gpu` makes an environment that has it).
"""
