"""`GPTConfig`: every constant that decides what the model computes, in any era of nanochat.

Pure Python: sizes, windows and costs follow from it without a model being built.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

# float32's machine epsilon: what torch's rms_norm takes, also for bfloat16 inputs (measured; its
# documentation speaks of the input's own epsilon, which would be 0.0078).
NORM_EPS = 1.1920928955078125e-07
# Names that checkpoints of ours have kept in `meta.json` and that decide nothing any more.
RETIRED = frozenset({"rope_factor"})


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Shape and constants of a GPT. The defaults are nanochat's of October 2025 (classic).

    Raises:
        ValueError: a shape that no model has; the message says what would fit.
    """

    sequence_len: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    rope_base: float = 10000.0
    rope_table_dtype: Literal["bfloat16", "float32", "compute"] = "bfloat16"
    # Logits are squeezed into +-15. The original tried 5 to 30 at depth 24: 5 is terrible, others
    # differ by 1e-3 bits per byte.
    logit_softcap: float = 15.0  # 0: none
    softcap_dtype: Literal["float32", "compute"] = "compute"
    qk_scale: float = 1.0  # on queries and keys, after their norm
    window_pattern: str = "L"  # L full, S short; repeated over the layers, the last is always L
    short_window: Literal["quarter", "third", "half"] = "quarter"
    long_window: Literal["unlimited", "sequence"] = "unlimited"  # beyond sequence_len
    value_embeds: bool = False
    ve_gate_width: int = 12
    ve_gate_scale: float = 3.0
    residual_scalars: bool = False
    smear: bool = False
    smear_width: int = 24
    backout: bool = False
    # Rows that no token has: a table of a multiple of 64 rows splits evenly over devices, and suits
    # tensor cores.
    pad_vocab_to: int = 1
    norm_eps: float = NORM_EPS
    init: Literal["classic", "current"] = "classic"

    def __post_init__(self) -> None:
        for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} is {vars(self)[name]}; expected 1 or more")
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2:
            # Even, since the rotation turns the two halves of a head against each other.
            raise ValueError(
                f"n_embd={self.n_embd} does not divide into n_head={self.n_head} heads of even "
                "width; set --head-dim to an even divisor of the width"
            )
        if self.n_head % self.n_kv_head:
            fits = [k for k in range(1, self.n_head + 1) if self.n_head % k == 0]
            raise ValueError(
                f"n_head={self.n_head} is not a multiple of n_kv_head={self.n_kv_head}; "
                f"set n_kv_head to one of {fits}"
            )
        if not self.window_pattern or set(self.window_pattern.upper()) - {"S", "L"}:
            raise ValueError(
                f"window_pattern is {self.window_pattern!r}; expected letters S and L, e.g. SSSL"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "GPTConfig":
        """The config that a checkpoint's `meta.json` holds under `model_config`."""
        return cls(**{name: value for name, value in values.items() if name not in RETIRED})

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def padded_vocab_size(self) -> int:
        return math.ceil(self.vocab_size / self.pad_vocab_to) * self.pad_vocab_to

    @property
    def value_embed_layers(self) -> tuple[int, ...]:
        """Layers with a value embedding: every second one, the last among them.

        Every second was the best of the original's trials (January 2026): they are large (53 % of
        all parameters at depth 12) and cost next to no FLOPs.
        """
        if not self.value_embeds:
            return ()
        return tuple(i for i in range(self.n_layer) if i % 2 == (self.n_layer - 1) % 2)

    @property
    def backout_layer(self) -> int:
        """The layer whose output is subtracted from the residual stream before the last norm."""
        return self.n_layer // 2

    @property
    def windows(self) -> tuple[int, ...]:
        """Per layer how many earlier positions a query sees besides its own.

        The last layer always sees everything: what it misses, no later layer can bring.
        Source: nanochat `GPT._compute_window_sizes`; half and third: its earlier rules.
        """
        # A comment in the original says 768 for a length of 2048; its code gives 512, as this does.
        S, pattern = self.sequence_len, self.window_pattern.upper()
        tiles = lambda parts: 128 * math.ceil(math.ceil(S / parts) / 128)
        short = {"quarter": tiles(4), "third": tiles(3), "half": S // 2}[self.short_window]
        kinds = [pattern[i % len(pattern)] for i in range(self.n_layer - 1)] + ["L"]
        return tuple(short if kind == "S" else S for kind in kinds)

    @property
    def masks(self) -> tuple[int | None, ...]:
        """Per layer the window that attention masks by; None: all earlier positions are seen."""
        limited = self.long_window == "sequence"
        return tuple(w if limited or w < self.sequence_len else None for w in self.windows)


# What a recipe sets beyond the shape. The reasons of `current` are the original's experiments of
# January to July 2026; the parts themselves are explained in models/.
RECIPES: dict[str, dict[str, Any]] = {
    "classic": {},
    "current": dict(
        rope_base=100000.0, rope_table_dtype="compute", softcap_dtype="float32",
        qk_scale=1.2,  # the norm fixes how sharp attention can get; this gives some of it back
        window_pattern="SSSL", long_window="sequence",
        value_embeds=True, residual_scalars=True, smear=True, backout=True,
        pad_vocab_to=64, init="current",
    ),
    # Classic without what no other program computes: with it a model is, after a change of weights
    # that loses nothing, an Apertus model (interop/apertus.py).
    "portable": dict(logit_softcap=0.0, rope_table_dtype="float32"),
}  # fmt: skip


def recipe_model_defaults(recipe: str) -> dict[str, Any]:
    """What a recipe sets of a GPTConfig beyond its shape; raises ValueError for an unknown one."""
    if recipe not in RECIPES:
        raise ValueError(f"no recipe {recipe!r}; use one of {', '.join(RECIPES)}")
    return dict(RECIPES[recipe])


def shape_of_depth(depth: int, aspect_ratio: int = 64, head_dim: int = 128) -> dict[str, int]:
    """The one dial: layers, width and heads of a depth. Width is rounded up to whole heads.

    The original tried both: aspect ratio 64 beats 128, and heads of 128 beat heads of 64.
    """
    heads = max(1, math.ceil(depth * aspect_ratio / head_dim))
    return dict(n_layer=depth, n_embd=heads * head_dim, n_head=heads, n_kv_head=heads)


def dials_of(cfg: GPTConfig) -> dict[str, Any]:
    """The inverse of `shape_of_depth`: the flags of base training that give this model's shape.

    Several aspect ratios give one width, since widths are rounded up to whole heads; any of them
    gives back the shape. The rates are scaled by a model of the same `aspect_ratio`, so whoever
    knows the run's own must put it above this one.
    """
    return dict(
        depth=cfg.n_layer, aspect_ratio=max(1, cfg.n_embd // cfg.n_layer), head_dim=cfg.head_dim,
        max_seq_len=cfg.sequence_len, window_pattern=cfg.window_pattern,
        reference_kv_heads=cfg.n_kv_head,
    )  # fmt: skip


def param_counts(cfg: GPTConfig) -> dict[str, int]:
    """Parameters by group, and their `total`. Source: nanochat `GPT.num_scaling_params`."""
    D, L, V, H = cfg.n_embd, cfg.n_layer, cfg.padded_vocab_size, cfg.head_dim
    kv = cfg.n_kv_head * H
    block = 2 * D * D + 2 * D * kv + 8 * D * D
    gates = len(cfg.value_embed_layers) * cfg.n_kv_head * cfg.ve_gate_width
    counts = {
        "wte": V * D,
        "value_embeds": len(cfg.value_embed_layers) * V * kv,
        "lm_head": V * D,
        "transformer_matrices": L * block + gates,
        "scalars": 2 * L * cfg.residual_scalars + (cfg.smear_width + 1) * cfg.smear + cfg.backout,
    }
    return counts | {"total": sum(counts.values())}


def matmul_params(cfg: GPTConfig) -> int:
    """Parameters that a token is multiplied with: all but embeddings and scalars.

    Looking up a row of a table costs no FLOPs, so embeddings do not count.
    """
    counts = param_counts(cfg)
    return counts["transformer_matrices"] + counts["lm_head"] + cfg.smear_width * cfg.smear


def flops_per_token(cfg: GPTConfig) -> int:
    """Training FLOPs of a token: 6 per matmul parameter, and attention.

    6: a multiplication and an addition forward, twice that backward (for inputs and weights). The
    causal half of attention is not taken off, so that MFU compares with other people's figures.

    Source: nanochat `GPT.estimate_flops`, PaLM (arXiv:2204.02311) appendix B.
    """
    attention = sum(12 * cfg.n_embd * min(w, cfg.sequence_len) for w in cfg.windows)
    return 6 * matmul_params(cfg) + attention


def kv_bytes_read(cfg: GPTConfig, context: int, bytes_per_value: int = 2) -> int:
    """Bytes of the cache that a decode step reads."""
    row = 2 * cfg.n_kv_head * cfg.head_dim * bytes_per_value
    return sum(row * min(context, w) for w in cfg.windows)
