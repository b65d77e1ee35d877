"""Which nanochat made a checkpoint: the constants it hard-coded are read off its keys and shapes.

Between October 2025 and July 2026 nanochat changed what a saved model means six times without
writing it down. Pure: the state dict's shapes and the `meta` JSON in, a `GPTConfig` out.

Source: the history of karpathy/nanochat; commits and dates stand beside each era.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults

Shapes = Mapping[str, tuple[int, ...]]

SHAPE = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
CURRENT = recipe_model_defaults("current")
_SCALARS = dict(
    CURRENT, rope_base=10000.0, rope_table_dtype="bfloat16", qk_scale=1.0, short_window="half",
    value_embeds=False, smear=False, backout=False,
)  # fmt: skip
_GATED = dict(_SCALARS, value_embeds=True, ve_gate_width=32, ve_gate_scale=2.0)

# What each era sets of a GPTConfig beyond the shape.
ERAS: dict[str, tuple[str, dict[str, Any]]] = {
    "A": ("October 2025 to 11 January 2026", {}),
    "B": ("11 to 18 January 2026: residual scalars, windows", _SCALARS),
    "C": ("18 January to 3 March 2026: value embeddings, gates of width 32", _GATED),
    "C20": (
        "3 to 9 March 2026: as C, softcap 20",
        dict(_GATED, logit_softcap=20.0, rope_table_dtype="compute"),
    ),
    "D": (
        "9 to 14 March 2026: gates of width 12, rotary base 100,000",
        dict(CURRENT, qk_scale=1.15, short_window="third", smear=False, backout=False),
    ),
    "E": ("since 14 March 2026: smear and backout", CURRENT),
}

# Keys of experiments and of other projects, and what they are.
REFUSED = (
    (r"bigram_.*", "bigram embeddings (nanochat of 27 and 28 January 2026)"),
    (r"v0_lambdas|value_embed(_[AB])?\..*", "value embeddings of the research branch `ve`"),
    (r".*(router|expert_bias|tokens_per_expert|w_up|w_down|experts).*", "a mixture of experts"),
)
SOFTCAP_20_EVAL_TOKENS = 41_943_040  # the default of `eval_tokens` since 4 March 2026


@dataclasses.dataclass(frozen=True)
class Found:
    """The era of a checkpoint: why, and what else its keys would allow."""

    era: str
    config: GPTConfig
    why: tuple[str, ...]
    others: tuple[tuple[str, GPTConfig], ...] = ()

    def __str__(self) -> str:
        return f"era {self.era} ({ERAS[self.era][0]}): " + "; ".join(self.why)


def stripped(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without the prefix that compiled modules leave."""
    return {key.removeprefix("_orig_mod."): value for key, value in state.items()}


def detect(shapes: Shapes, meta: Mapping[str, Any]) -> Found:
    """The era of a state dict (`_orig_mod.` stripped) beside its meta, and the config it means.

    Raises:
        ValueError: a key or shape that no era of nanochat has, or a meta without a model config.
    """
    refuse_foreign(shapes)
    shape = _shape(meta)
    era, why = _era(shapes)
    pattern, reason = _pattern(shapes, meta)
    why = [*why, *reason]
    rows = shapes["transformer.wte.weight"][0]
    constants = dict(ERAS[era][1], **({} if pattern is None else {"window_pattern": pattern}))
    if era == "A" and rows != shape["vocab_size"]:
        constants |= dict(pad_vocab_to=64, softcap_dtype="float32")
        why.append(f"{rows} rows for {shape['vocab_size']} ids: padded, since 23 December 2025")
    make = lambda **changes: _config({**constants, **shape, **changes})
    others: list[tuple[str, GPTConfig]] = []
    if era in ("C", "C20"):
        era, reason = _softcap(meta)
        why.append(reason)
        constants |= ERAS[era][1] | {"window_pattern": constants["window_pattern"]}
        rest = 15.0 if era == "C20" else 20.0
        others.append((f"softcap {rest:g}", make(logit_softcap=rest)))
    if "window_pattern" not in meta["model_config"] and era != "A":
        rest = "L" if pattern == "SSSL" else "SSSL"
        others.append((f"window pattern {rest}", make(window_pattern=rest)))
    found = Found(era, make(), tuple(why), tuple(others))
    check_shapes(shapes, found)
    return found


def refuse_foreign(shapes: Shapes) -> None:
    """Raises ValueError naming the keys that no release of nanochat has, and whose they are."""
    for pattern, what in REFUSED:
        keys = [key for key in shapes if re.fullmatch(pattern, key)]
        if keys:
            raise ValueError(
                f"this checkpoint has {what} ({_some(keys)}), which no release of nanochat and no "
                "recipe here can run; it cannot be imported"
            )
    if "transformer.wte.weight" not in shapes:
        raise ValueError(
            f"not a nanochat model: no transformer.wte.weight among its keys ({_some(shapes)})"
        )


def expected_shapes(cfg: GPTConfig) -> dict[str, tuple[int, ...]]:
    """nanochat's keys and shapes (`[out, in]`) of a model, in the order of its modules."""
    D, V, kv = cfg.n_embd, cfg.padded_vocab_size, cfg.n_kv_head * cfg.head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    if cfg.residual_scalars:
        shapes |= {"resid_lambdas": (cfg.n_layer,), "x0_lambdas": (cfg.n_layer,)}
    shapes |= {"smear_lambda": (1,)} if cfg.smear else {}
    shapes |= {"backout_lambda": (1,)} if cfg.backout else {}
    shapes["transformer.wte.weight"] = (V, D)
    for i in range(cfg.n_layer):
        at = f"transformer.h.{i}"
        shapes |= {
            f"{at}.attn.c_q.weight": (D, D),
            f"{at}.attn.c_k.weight": (kv, D),
            f"{at}.attn.c_v.weight": (kv, D),
            f"{at}.attn.c_proj.weight": (D, D),
        }
        if i in cfg.value_embed_layers:
            shapes[f"{at}.attn.ve_gate.weight"] = (cfg.n_kv_head, cfg.ve_gate_width)
        shapes |= {f"{at}.mlp.c_fc.weight": (4 * D, D), f"{at}.mlp.c_proj.weight": (D, 4 * D)}
    shapes["lm_head.weight"] = (V, D)
    shapes |= {"smear_gate.weight": (1, cfg.smear_width)} if cfg.smear else {}
    return shapes | {f"value_embeds.{i}.weight": (V, kv) for i in cfg.value_embed_layers}


def check_shapes(shapes: Shapes, found: Found) -> None:
    """Raises ValueError unless the keys and shapes are those of the config that was found."""
    want = expected_shapes(found.config)
    missing, unknown = sorted(want.keys() - shapes.keys()), sorted(shapes.keys() - want.keys())
    if missing or unknown:
        parts = [f"missing {_some(missing)}"] * bool(missing)
        parts += [f"unknown {_some(unknown)}"] * bool(unknown)
        raise ValueError(
            f"not the keys of a nanochat model of era {found.era} ({'; '.join(found.why)}) with "
            f"{found.config.n_layer} layers: {' and '.join(parts)}; is the meta file that of "
            "another model?"
        )
    for key, size in want.items():
        if tuple(shapes[key]) != size:
            raise ValueError(
                f"{key} is {tuple(shapes[key])}, but the model config beside it (vocab_size "
                f"{found.config.vocab_size}, n_embd {found.config.n_embd}) asks for {size}; "
                "is the meta file that of another model?"
            )


def _era(shapes: Shapes) -> tuple[str, list[str]]:
    gates = {shape[1] for key, shape in shapes.items() if key.endswith("attn.ve_gate.weight")}
    if "smear_gate.weight" in shapes:
        return "E", ["has smear_gate.weight"]
    if gates == {12}:
        return "D", ["value gates of width 12, no smear"]
    if gates == {32}:
        return "C", ["value gates of width 32"]
    if gates:
        raise ValueError(f"value gates of width {sorted(gates)}; nanochat had 32 and 12")
    if "resid_lambdas" in shapes:
        return "B", ["has resid_lambdas, no value embeddings"]
    return "A", ["no resid_lambdas"]


def _pattern(shapes: Shapes, meta: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The window pattern (None: the era has none), and why where the meta does not say."""
    pattern = meta["model_config"].get("window_pattern")
    if not isinstance(pattern, str | None):
        raise ValueError(f"the meta file's window_pattern is {pattern!r}; expected text like SSSL")
    if pattern is not None or "resid_lambdas" not in shapes:
        return pattern, []
    if "depth" in (meta.get("user_config") or {}):
        return "L", ["a base run without window_pattern: full attention"]
    return "SSSL", [
        "no window_pattern in the meta of a later stage: January 2026's trainers forgot it and "
        "trained with SSSL (check with --probe)"
    ]


def _softcap(meta: Mapping[str, Any]) -> tuple[str, str]:
    """C or C20: keys cannot tell softcap 15 from 20."""
    tokens = (meta.get("user_config") or {}).get("eval_tokens") or 0
    if tokens >= SOFTCAP_20_EVAL_TOKENS:
        return "C20", f"eval_tokens {tokens:,} is a default of after 4 March 2026: softcap 20"
    return "C", "softcap 15 or 20 does not show in the keys: 15 taken (check with --probe)"


def _shape(meta: Mapping[str, Any]) -> dict[str, int]:
    config = meta.get("model_config")
    missing = [name for name in SHAPE if name not in (config or {})]
    if missing:
        raise ValueError(f"the meta file has no model_config with {', '.join(missing)}")
    for name in SHAPE:
        if type(config[name]) is not int:
            raise ValueError(f"the meta file's {name} is {config[name]!r}; expected a whole number")
    return {name: config[name] for name in SHAPE}


def _config(values: Mapping[str, Any]) -> GPTConfig:
    try:
        return GPTConfig(**values)
    except ValueError as error:
        raise ValueError(f"the meta file's model_config is of no model: {error}") from None


def _some(keys: Any, most: int = 4) -> str:
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
