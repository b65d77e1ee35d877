"""A run continued from the original's own files: weights and optimizer state after half of it."""

import collections
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from nanochat_jax.checkpoint.names import from_nanochat, path_of
from tests.golden.conftest import files, load_npz
from tests.golden.test_optim_traj import (
    finals_close,
    losses_close,
    scaled_optim,
    schedules_are_the_originals,
    settings,
    train,
    weights,
)

# The order of AdamW's parameters and, in a block, of Muon's: how the file numbers them.
TABLES = ("lm_head.", "transformer.wte.", "value_embeds.")
SCALARS = ("resid_lambdas", "x0_lambdas", "smear_gate.", "smear_lambda", "backout_lambda")
IN_BLOCK = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "attn.ve_gate", "mlp.")


class Torch(pickle.Unpickler):
    """Reads the tensors of a torch file, float32 only."""

    def __init__(self, archive: zipfile.ZipFile):
        self.archive, name = archive, archive.namelist()[0].split("/")[0]
        self.folder = name
        super().__init__(archive.open(f"{name}/data.pkl"))

    def find_class(self, module: str, name: str):
        known = {"_rebuild_tensor_v2": self.tensor, "OrderedDict": collections.OrderedDict}
        return known.get(name, name)

    def persistent_load(self, pid):
        return np.frombuffer(self.archive.read(f"{self.folder}/data/{pid[2]}"), np.float32)

    @staticmethod
    def tensor(storage, offset, size, stride, *_):
        strides = [4 * s for s in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def read(path: Path):
    with zipfile.ZipFile(path) as archive:
        return Torch(archive).load()


def rank(name: str) -> tuple:
    """Where a parameter stands among those of its kind."""
    if name.startswith("transformer.h."):
        layer, rest = name.removeprefix("transformer.h.").split(".", 1)
        place = next(i for i, start in enumerate(IN_BLOCK) if rest.startswith(start))
        return (1, int(layer), place, rest)
    order = (*TABLES, *SCALARS)
    return (0, next(i for i, start in enumerate(order) if name.startswith(start)), name)


def optimizer_state(model: dict, optim: dict) -> dict:
    """Our state from the original's: a tree per buffer, keyed as the parameters."""
    names = sorted(model, key=rank)
    adam = [n for n in names if rank(n)[0] == 0]
    shapes = sorted({model[n].shape for n in names if rank(n)[0] == 1})
    ordered = adam + [n for s in shapes for n in names if rank(n)[0] == 1 and model[n].shape == s]
    state: dict = collections.defaultdict(dict)
    for group in optim["param_groups"]:
        for place, index in enumerate(group["params"]):
            kind = "muon" if group["kind"] == "muon" else "adam"
            source = optim["state"][group["params"][0] if kind == "muon" else index]
            path = path_of(ordered[index])
            for buffer, value in source.items():
                if buffer == "step":
                    state["step"] = np.int32(value)
                    continue
                value = value[place] if kind == "muon" else value
                turned = value.T if path.endswith("/kernel") else value
                state[kind].setdefault(buffer, {})[tuple(path.split("/"))] = turned
    for kind in ("adam", "muon"):
        state[kind] = {name: unflatten_dict(flat) for name, flat in state[kind].items()}
    return dict(state)


@pytest.mark.parametrize("path", files("current/optim_traj_resume*.npz"))
def test_a_resumed_run_goes_on_as_the_originals(path):
    data = load_npz(path)
    cfg, config = settings(path, data)
    first = int(data["rec.steps"][0])
    folder = next(path.parent.glob("checkpoint_resume/base_checkpoints/*"))
    model = read(folder / f"model_{first:06d}.pt")
    loaded = optimizer_state(model, read(folder / f"optim_{first:06d}_rank0.pt"))

    def resume(state):
        assert jax.tree.map(np.shape, state.opt_state) == jax.tree.map(np.shape, loaded)
        return state.replace(step=np.int32(first), opt_state=loaded)

    optim = scaled_optim(cfg, config, data)
    got, params = train(cfg, optim, data, (from_nanochat(model), resume), first)
    losses_close(got["train/loss"], data["rec.loss"], "current", "f32", 0.0)
    finals_close(params, weights(data, "final."), "current", "f32")
    schedules_are_the_originals(got, data)
