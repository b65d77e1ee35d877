"""What the numbers of a config may be: said once, and refused in one form of words."""

from typing import Any

# What is counted or divided by.
COUNTS = frozenset(
    "device_batch_size max_seq_len eval_tokens depth aspect_ratio head_dim loader_ranks "
    "target_examples_per_step num_epochs examples_per_step num_samples max_new_tokens "
    "eval_examples eval_samples split_tokens vocab_size max_chars doc_cap num_workers "
    "count ngram".split()
)
# The same, where -1 has a meaning of its own.
OPEN_COUNTS = {
    "eval_every": "never", "sample_every": "never", "core_metric_every": "never",
    "eval_metrics_every": "never", "num_iterations": "as many as follow from the rest",
    "total_batch_size": "what follows from the rest", "core_metric_max_per_task": "all",
    "eval_metrics_max_problems": "all", "chatcore_max_sample": "all", "max_problems": "all",
    "num_shards": "all", "num_files": "all", "target_flops": "not used",
    "target_param_data_ratio": "not used",
}  # fmt: skip
# The number of a checkpoint, which may be that before any step.
STEPS = {"step": "the last", "resume_from_step": "what --resume says"}
# What 0 turns off, or leaves to the program.
FROM_ZERO = {
    "muon_steps": "off", "momentum_steps": "none", "warmup_steps": "none", "grad_clip": "off",
    "eval_steps": "what eval_tokens says", "reference_kv_heads": "all of them",
    "batch_size": "what suits the device", "download": "none", "top_k": "all tokens",
    "lora_rank": "training of all weights",
    "threads": "one for each core",
}  # fmt: skip
SHARES = frozenset(("warmup_ratio", "warmdown_ratio"))
RATES = ("_lr", "_lr_frac", "weight_decay")  # how the names of rates end


def check(config: Any) -> None:
    """Raises ValueError for the first number of a dataclass that nothing could be done with."""
    for name, value in vars(config).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if (wanted := _refused(name, value)) is not None:
                raise ValueError(f"{name} is {value}; set it to {wanted}")


def _refused(name: str, value: float) -> str | None:
    """What it should be; None: it may be that. In `not a >= b` NaN is refused too."""
    if name in COUNTS and not value >= 1:
        return "1 or more"
    if name in OPEN_COUNTS and value != -1 and not value > 0:
        least = "1 or more" if type(value) is int else "more than 0"
        return f"{least}, or to -1 for {OPEN_COUNTS[name]}"
    if name in STEPS and value != -1 and not value >= 0:
        return f"0 or more, or to -1 for {STEPS[name]}"
    if name in FROM_ZERO and not value >= 0:
        return f"1 or more, or to 0 for {FROM_ZERO[name]}"
    if name in SHARES and not 0 <= value <= 1:
        return "a number from 0 to 1"
    return "0 or more" if name.endswith(RATES) and not value >= 0 else None
