"""Optimizer steps and their stages, number by number against the original's."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.train import muon
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import Hyper
from tests.golden.conftest import era_of, files, load_npz
from tests.golden.numbers import tensor

VARIANTS = ("f32", "bf16", "f32_wd")
DTYPE = {"f32": jnp.float32, "bf16": jnp.bfloat16}


def kernel(weight):
    """A torch weight (or stack of them) `[out, in]` as our `[in, out]`, and back."""
    return jnp.swapaxes(jnp.asarray(weight), -1, -2)


def close(got, want, variant: str, what: str) -> None:
    tensor(got, want, f"optim_{variant[:4].strip('_')}", what)


def mostly(equal: list[bool]) -> bool:
    """Whether most cases agree to the last bit, as they do where every rounding is the original's.

    Not all: another processor sums a norm in another order, and one rounding of it moves a matrix.
    """
    return sum(equal) > len(equal) / 2


def cases(data, prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in data if key.startswith(prefix)]


@partial(jax.jit, static_argnums=1)  # one compilation for all cases
def newton_schulz_of_all(stacks: dict, dtype) -> dict:
    return {case: muon.newton_schulz(x, 5, dtype) for case, x in stacks.items()}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["f32", "bf16"])
@pytest.mark.parametrize("path", files("classic/optim_unit*.npz"))
def test_newton_schulz_gives_the_originals_direction(path, variant):
    data = load_npz(path)
    inputs = {case: data[f"ns.in.{case}"] for case in cases(data, "ns.in.")}
    stacks = {case: kernel(x if x.ndim == 3 else x[None]) for case, x in inputs.items()}
    equal = []
    for case, got in newton_schulz_of_all(stacks, DTYPE[variant]).items():
        want = data[f"ns.out_{variant}.{case}"]
        got = kernel(got).astype(jnp.float32).reshape(want.shape)
        if variant == "f32" or "lowrank" not in case:
            close(got, want, variant, case)
        equal.append(np.array_equal(got, want))
    assert variant == "f32" or mostly(equal)


def first_step(cfg, x, w, dtype) -> dict[str, jax.Array]:
    """Every stage of one July 2026 step from zero buffers, on kernels."""
    buffer = jnp.float32(1) - jnp.float32(cfg["momentum"])
    nesterov = buffer * x - (buffer * x - x) * buffer
    rows = muon.equalize_rows(nesterov, dtype)
    polar = muon.polar_express(rows, cfg["ns_steps"], dtype)
    unit = muon.renormalize(muon.f32(polar))
    second = jnp.zeros((x.shape[0], *muon.second_shape(x.shape)))
    direction, second = muon.reduce_variance(unit, second, cfg["beta2"])
    w1 = w - cfg["lr"] * (direction + cfg["weight_decay"] * muon.cautious(direction, w))
    return {
        "row_equilibrated": rows, "polar": polar, "renormalised": unit,
        "variance_reduced": direction, "second_momentum": second, "w1": w1,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["f32", "bf16"])
@pytest.mark.parametrize("path", files("current/optim_unit*.npz"))
def test_every_stage_of_the_2026_step_is_the_originals(path, variant):
    data = load_npz(path)
    names, cfg = cases(data, "pe.in."), data["pe.cfg.json"]
    pairs = {c: (kernel(data[f"pe.in.{c}"]), kernel(data[f"pe.w0.{c}"])) for c in names}
    step_all = jax.jit(
        lambda pairs: {c: first_step(cfg, x, w, DTYPE[variant]) for c, (x, w) in pairs.items()}
    )
    equal = []
    for case, stages in step_all(pairs).items():
        for stage, got in stages.items():
            want = data.get(f"pe.{variant}.{stage}.{case}")
            if want is None or (variant == "bf16" and "lowrank" in case):
                continue
            got = kernel(got).astype(jnp.float32)
            close(got, want, variant, (case, stage))
            equal += [np.array_equal(got, want)] if stage == "polar" else []
    assert variant == "f32" or mostly(equal)


# A parameter of the unit cases -> the path that puts it into the same group here.
PLACES = {
    "embedding": ("wte", "embedding"),
    "embedding_bf16": ("wte", "embedding"),
    "head": ("lm_head", "kernel"),
    "scalars": ("x0_lambdas",),
}


def place(name: str) -> tuple[str, ...]:
    return PLACES.get(name, ("h_0", "mlp", name, "kernel"))


def lay(name: str, array) -> jax.Array:
    """A torch array as our parameter of that path holds it."""
    array = jnp.asarray(array)
    array = array.astype(jnp.bfloat16) if name.endswith("_bf16") else array
    return kernel(array) if place(name)[-1] == "kernel" else array


def nest(flat: dict) -> dict:
    tree: dict = {}
    for path, value in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree


def look(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def unit_optim(data, era: str, variant: str) -> OptimConfig:
    cfg = data["unit.cfg.json"]
    muon_cfg, adam = cfg["muon"], cfg["adamw"]
    optim = OptimConfig(**{**DEFAULTS[era]["base"], "grad_clip": 0.0})
    optim = dataclasses.replace(
        optim,
        matrix_lr=muon_cfg["lr"],
        muon_steps=muon_cfg["ns_steps"],
        muon_dtype="bfloat16" if variant == "bf16" else "float32",
    )
    if era == "classic":
        return dataclasses.replace(
            optim,
            embedding_lr=adam["lr_embedding"],
            unembedding_lr=adam["lr_head"],
            weight_decay=adam["weight_decay"][variant],
            adam_beta1=adam["betas"][0],
            embedding_beta2=adam["betas"][1],
            unembedding_beta2=adam["betas"][1],
            adam_eps=adam["eps"],
        )
    head, table, scalars = adam["head"], adam["embedding"], adam["scalars"]
    return dataclasses.replace(
        optim,
        embedding_lr=table["lr"],
        unembedding_lr=head["lr"],
        scalar_lr=scalars["lr"],
        adam_beta1=head["betas"][0],
        embedding_beta2=table["betas"][1],
        unembedding_beta2=head["betas"][1],
        x0_beta1=scalars["betas"][0],
        scalar_beta2=scalars["betas"][1],
        embedding_weight_decay=table["weight_decay"],
        unembedding_weight_decay=head["weight_decay"],
        muon_beta2=muon_cfg["beta2"],
    )


def walk(data, era: str, variant: str, names: list[str]):
    """Weights after each step, by name, and the state after the last."""
    history = []
    params = nest({place(n): lay(n, data[f"unit.w0.{n.removesuffix('_bf16')}"]) for n in names})
    optim, width = unit_optim(data, era, variant), SimpleNamespace(n_embd=768)
    tx = make_optimizer(width, optim, params)
    state, update = tx.init(params), jax.jit(tx.update)
    decays = data.get("unit.muon_weight_decays", np.zeros(data["unit.cfg.json"]["nsteps"]))
    schedules = zip(data["unit.momenta"], data["unit.lr_multipliers"], decays, strict=True)
    for step, (mu, multiplier, decay) in enumerate(schedules):
        grads = {n: lay(n, data[f"unit.grads.{n.removesuffix('_bf16')}"][step]) for n in names}
        hyper = Hyper(np.float32(multiplier), np.float32(mu), np.float32(decay))
        tree = nest({place(n): g for n, g in grads.items()})
        updates, state = update(tree, state, params, hyper=hyper)
        params = optax.apply_updates(params, updates)
        history.append({n: look(params, place(n)) for n in names})
    return history, state


def names_of(data) -> tuple[list[str], list[str]]:
    """The parameters that share one run, and those stored in bfloat16, which take another."""
    names = sorted({n.removeprefix("unit.w0.") for n in data if n.startswith("unit.w0.")})
    narrow = [n for n in cases(data, "unit.f32.") if n.endswith("_bf16") and "state" not in n]
    return names, narrow


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("path", files("optim_unit*.npz"))
def test_five_optimizer_steps_are_the_originals(path, variant):
    data, era = load_npz(path), era_of(path)
    if not cases(data, f"unit.{variant}."):
        assert variant == "f32_wd" and era == "current"
        return
    names, narrow = names_of(data)
    for group in filter(None, (names, narrow)):
        history, state = walk(data, era, variant, group)
        for step, weights in enumerate(history):
            for name, w in weights.items():
                want = data[f"unit.{variant}.{name}"][step]
                close(torch_like(name, w), want, variant, (name, step))
        check_state(data, variant, group, state)


def torch_like(name: str, array) -> np.ndarray:
    array = muon.f32(array)
    return np.asarray(kernel(array) if place(name)[-1] == "kernel" else array)


def check_state(data, variant: str, names: list[str], state) -> None:
    buffers = {**state["adam"], **state["muon"]}
    for key in cases(data, f"unit.{variant}.state."):
        buffer, name = key.split(".", 1)
        if name in names:
            got = torch_like(name, look(buffers[buffer], place(name)))
            close(got, data[f"unit.{variant}.state.{key}"], variant, key)


@pytest.mark.parametrize("path", files("current/optim_unit*.npz"))
def test_a_bfloat16_table_keeps_bfloat16_weights_and_moments(path):
    data = load_npz(path)
    history, state = walk(data, "current", "f32", ["embedding_bf16"])
    assert {x.dtype for x in jax.tree.leaves(state["adam"])} == {jnp.dtype(jnp.bfloat16)}
    for step, weights in enumerate(history):
        got = weights["embedding_bf16"]
        assert got.dtype == jnp.bfloat16
        want = data["unit.f32.embedding_bf16"][step]
        np.testing.assert_array_less(np.abs(got.astype(np.float32) - want), 2**-7 * (1 + abs(want)))
