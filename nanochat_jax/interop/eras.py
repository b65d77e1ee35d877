"""Which nanochat made a checkpoint: the constants it hard-coded are read off its keys and shapes.

Between October 2025 and July 2026 nanochat changed what a saved model means six times without
writing it down. Pure: the state dict's shapes and the `meta` JSON in, a `GPTConfig` out.

Source: the history of karpathy/nanochat; commits and dates stand beside each era.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults

Shapes = Mapping[str, tuple[int, ...]]

SHAPE = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
CURRENT = recipe_model_defaults("current")
_SCALARS = dict(
    CURRENT, rope_base=10000.0, rope_table_dtype="bfloat16", qk_scale=1.0, short_window="half",
    value_embeds=False, smear=False, backout=False,
)  # fmt: skip
_GATED = dict(_SCALARS, value_embeds=True, ve_gate_width=32, ve_gate_scale=2.0)


class Era(NamedTuple):
    """A time in which nanochat's code computed one thing of the same keys."""

    period: str
    constants: dict[str, Any]  # what it sets of a GPTConfig beyond the shape


ERAS = {
    "A": Era("October 2025 to 11 January 2026", {}),
    # aa530cd: a weight for the stream and one for the embedding in front of each block.
    "B": Era("11 to 18 January 2026: residual scalars, windows", _SCALARS),
    # a91743c: every second layer mixes an embedding of the token into its values.
    "C": Era("18 January to 3 March 2026: value embeddings, gates of width 32", _GATED),
    # aba30cb: nothing but the softcap. On 4 March (1076f97) autocast went, and the rotary tables
    # have followed the compute type since; before, they were bfloat16 on every device.
    "C20": Era(
        "3 to 9 March 2026: as C, softcap 20",
        dict(_GATED, logit_softcap=20.0, rope_table_dtype="compute"),
    ),
    # 6ed7d1d: one commit of an automatic search, six constants at once, the softcap back at 15.
    "D": Era(
        "9 to 14 March 2026: gates of width 12, rotary base 100,000",
        dict(CURRENT, qk_scale=1.15, short_window="third", smear=False, backout=False),
    ),
    "E": Era("since 14 March 2026: smear and backout", CURRENT),  # a825e63
}

# Keys of experiments and of other projects, and what they are. They are refused, not skipped: a
# model without some of its tensors answers, only worse, and nobody would know why.
REFUSED = (
    (r"bigram_.*", "bigram embeddings (nanochat of 27 and 28 January 2026)"),
    (r"v0_lambdas|value_embed(_[AB])?\..*", "value embeddings of the research branch `ve`"),
    (r".*(router|expert_bias|tokens_per_expert|w_up|w_down|experts).*", "a mixture of experts"),
)
# The default of `eval_tokens` since 4 March 2026 (324e69c), twice as many as before.
SOFTCAP_20_EVAL_TOKENS = 41_943_040


@dataclasses.dataclass(frozen=True)
class Detected:
    """The era of a checkpoint: why, and what else its keys would allow."""

    name: str
    config: GPTConfig
    why: tuple[str, ...]
    others: tuple[tuple[str, GPTConfig], ...] = ()

    def __str__(self) -> str:
        return f"era {self.name} ({ERAS[self.name].period}): " + "; ".join(self.why)


def stripped(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without the prefix that compiled modules leave.

    nanochat saves the module itself, but its loader expects the prefix, and so do others' files.
    """
    return {key.removeprefix("_orig_mod."): value for key, value in state.items()}


def detect(shapes: Shapes, meta: Mapping[str, Any]) -> Detected:
    """The era of a state dict (`_orig_mod.` stripped) beside its meta, and the config it means.

    Raises:
        ValueError: a key or shape that no era of nanochat has, or a meta without a model config.
    """
    refuse_foreign(shapes)
    sizes = {name: meta["model_config"].get(name) for name in SHAPE}
    for name, value in sizes.items():
        if type(value) is not int:
            raise ValueError(f"the meta file's {name} is {value!r}; expected a whole number")
    era, why = _era(shapes)
    pattern, pattern_why = _pattern(shapes, meta)
    why = [why, *pattern_why]
    others: dict[str, dict[str, Any]] = {}
    if era == "C":
        era, softcap_why = _softcap(meta)
        why.append(softcap_why)
        other = 15.0 if era == "C20" else 20.0
        others[f"softcap {other:g}"] = dict(logit_softcap=other)
    constants = ERAS[era].constants | ({} if pattern is None else {"window_pattern": pattern})
    rows = shapes["transformer.wte.weight"][0]
    if era == "A" and rows != sizes["vocab_size"]:
        # f1bf69d padded the tables, for tensor cores and for ranks that share their rows; logits
        # went to float32 before the softcap since 8 December (cbf30c8).
        constants |= dict(pad_vocab_to=64, softcap_dtype="float32")
        why.append(f"{rows} rows for {sizes['vocab_size']} ids: padded, since 23 December 2025")
    if "window_pattern" not in meta["model_config"] and era != "A":
        other = "L" if pattern == "SSSL" else "SSSL"
        others[f"window pattern {other}"] = dict(window_pattern=other)
    try:
        cfg = GPTConfig(**{**constants, **sizes})
    except ValueError as error:
        raise ValueError(f"the meta file's model_config is of no model: {error}") from None
    if mismatch := mismatches(shapes, expected_shapes(cfg)):
        raise ValueError(
            f"not the tensors of a nanochat model of era {era} ({'; '.join(why)}) with "
            f"{cfg.n_layer} layers: {mismatch}; is the meta file (vocab_size {cfg.vocab_size}, "
            f"n_embd {cfg.n_embd}) that of another model?"
        )
    rest = ((name, dataclasses.replace(cfg, **changes)) for name, changes in others.items())
    return Detected(era, cfg, tuple(why), tuple(rest))


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
    # V with its padding: files keep those rows, the model only cuts their logits off.
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


def mismatches(shapes: Shapes, expected: Shapes) -> str:
    """What of the tensors is missing, unknown or of another shape; empty where nothing is."""
    keys = {
        "missing": [key for key in expected if key not in shapes],
        "unknown": [key for key in shapes if key not in expected],
    }
    parts = [f"{what} {_some(names)}" for what, names in keys.items() if names]
    both = {key: (tuple(shapes[key]), size) for key, size in expected.items() if key in shapes}
    other = [f"{key} is {got}, expected {want}" for key, (got, want) in both.items() if got != want]
    return " and ".join(parts or other[:1])


def _era(shapes: Shapes) -> tuple[str, str]:
    """The era by keys and shapes, the newest feature first; "C" where it may be C20."""
    gates = {shape[1] for key, shape in shapes.items() if key.endswith("attn.ve_gate.weight")}
    # Gates got another width just when the constants changed (6ed7d1d): it dates a checkpoint.
    if "smear_gate.weight" in shapes:
        return "E", "has smear_gate.weight"
    if gates == {12}:
        return "D", "value gates of width 12, no smear"
    if gates == {32}:
        return "C", "value gates of width 32"
    if gates:
        raise ValueError(f"value gates of width {sorted(gates)}; nanochat had 32 and 12")
    if "resid_lambdas" in shapes:
        return "B", "has resid_lambdas, no value embeddings"
    return "A", "no resid_lambdas"


def _pattern(shapes: Shapes, meta: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The window pattern (None: the era has none), and why where the meta does not say."""
    pattern = meta["model_config"].get("window_pattern")
    if not isinstance(pattern, str | None):
        raise ValueError(f"the meta file's window_pattern is {pattern!r}; expected text like SSSL")
    if pattern is not None or "resid_lambdas" not in shapes:
        return pattern, []
    # Only base runs have a flag `depth`, and those without a pattern are of the three hours on 11
    # January before the pattern came.
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


def _some(keys: Any, most: int = 4) -> str:
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
