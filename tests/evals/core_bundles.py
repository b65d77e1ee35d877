"""Small bundles of CORE tasks, a tokenizer and a model that has opinions."""

import gzip
import json

import jax

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.evals.core.bundle import CoreTask
from nanochat_jax.models.gpt import Model, init_params
from nanochat_jax.tokenizer import Tokenizer

WORDS = "the cat sat on a mat and the old dog saw it go over the green hill at noon".split()
TOKENIZER = Tokenizer.train([" ".join(WORDS), "which one is it, one or two? so it goes"] * 3, 300)


def model(recipe="current", **changes):
    """Two layers, noise on every parameter, a context of 96 tokens."""
    shape = dict(sequence_len=96, vocab_size=300, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    cfg = GPTConfig(**recipe_model_defaults(recipe) | shape | changes)
    noise = lambda keys, p: (
        p + 0.3 * jax.random.normal(jax.random.key(len(jax.tree_util.keystr(keys))), p.shape)
    )
    params = jax.jit(lambda: init_params(cfg, jax.random.key(0)))()
    return Model.create(cfg, jax.tree_util.tree_map_with_path(noise, params), dtype="float32")


def words(i, n):
    return " ".join(WORDS[(3 * i + k) % len(WORDS)] for k in range(n))


def choice(i, options=3):
    choices = [words(i + k, 1 + (i + k) % 3) for k in range(options)]
    return {"query": f"which one is {words(i, 3 + i % 5)}", "choices": choices, "gold": i % options}


def schema(i):
    options = [f"{words(i, 2 + i % 3)} {who}" for who in ("dog", "cat")]
    return {"context_options": options, "continuation": words(i + 1, 4), "gold": i % 2}


def cloze(i):
    return {"context": words(i, 5 + i % 7), "continuation": words(i + 2, 1 + i % 2)}


ROWS = {"multiple_choice": choice, "schema": schema, "language_modeling": cloze}


def task(kind, shots=2, delimiter=" ", label="t"):
    return CoreTask(label, kind, shots, delimiter, 25.0, None)


def write(folder, tasks, missing=()):
    """A bundle: label -> (kind, shots, baseline, rows); what is `missing` has no file.

    Every second file is gzipped.
    """
    entries, table = ["icl_tasks:"], ["Eval Task,Random baseline"]
    (folder / "eval_data" / "some").mkdir(parents=True)
    for n, (label, (kind, shots, baseline, rows)) in enumerate(tasks.items()):
        uri = f"some/{label}.jsonl"
        entries += ["-", f"  label: {label}", f"  icl_task_type: {kind}"]
        entries += [f"  dataset_uri: {uri}", f"  num_fewshot: [{shots}]"]
        table.append(f"{label},{baseline}")
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if label not in missing:
            path = folder / "eval_data" / (uri + ".gz" * (n % 2))
            path.write_bytes(gzip.compress(text) if n % 2 else text)
    (folder / "core.yaml").write_text("\n".join(entries) + "\n")
    (folder / "eval_meta_data.csv").write_text("\n".join(table) + "\n")
    return folder


def three(folder, n=12, **kw):
    """A bundle with a task of each kind, `n` rows each."""
    tasks = {kind: (kind, 2, 25.0, [row(i) for i in range(n)]) for kind, row in ROWS.items()}
    return write(folder, tasks, **kw)
