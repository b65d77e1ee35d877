"""A checkpoint in place of the one that a program reads, and who still holds its matrices."""

import gc
import weakref

from nanochat_jax.serve.load import Loaded
from tests.serve.world import BYTES, random_model


class ReadWeights:
    """Stands in for the `load` of `module`."""

    def __init__(self, monkeypatch, module):
        self._refs = []
        monkeypatch.setattr(module, "load", self._load)

    def _load(self, *_, **__):
        model = random_model()
        blocks = [model.params[f"h_{i}"] for i in range(model.cfg.n_layer)]
        self._refs = [weakref.ref(block["mlp"]["c_fc"]["kernel"]) for block in blocks]
        return Loaded(model, BYTES, "cpu", "nanochat-sft-d2", 1)

    def alive(self) -> int:
        """How many of the matrices as they were read are still held by anyone."""
        assert self._refs
        gc.collect()
        return sum(ref() is not None for ref in self._refs)
