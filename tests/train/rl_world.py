"""A base directory with a tiny sft model and sums to try, for tests of the rl stage."""

import json
import pathlib

import jax
import numpy as np
import optax

from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.config.stages import RLTrain
from nanochat_jax.models.gpt import GPT, Model, init_params
from nanochat_jax.models.loss import token_nll
from tests.serve.world import BYTES

SHAPE = GPTConfig(sequence_len=64, vocab_size=265, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
SUMS = ((6, 7), (12, 5), (3, 4), (20, 8))


def exchange(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def sum_of(x, y):
    """A sum that is worked with the calculator."""
    call = {"type": "python", "text": f"{x}+{y}"}
    output = {"type": "python_output", "text": str(x + y)}
    return exchange(f"{x}+{y}?", [call, output, {"type": "text", "text": str(x + y)}])


CHATS = [sum_of(x, y) for x, y in SUMS]


def write_conversations(root, chats):
    """The same conversations to learn from and to validate by."""
    folder = root / "conversations"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(chat) + "\n" for chat in chats)
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text(text)


def write_sft(root, model):
    """The model as a finished sft stage of the base directory."""
    BYTES.save(root / "tokenizer")
    meta = {
        "stage": "sft", "final": True, "model_config": vars(model.cfg),
        "fingerprint": {}, "tokenizer_hash": BYTES.hash,
    }  # fmt: skip
    store.save(root / "chatsft_checkpoints" / "d2", 1, model.params, meta)


def taught(chats, steps) -> Model:
    """A tiny model that has seen the chats' answers a few times: it is right now and then."""
    rendered = [BYTES.render_conversation({"messages": chat}) for chat in chats]
    width = max(len(ids) for ids, _ in rendered)
    fill = lambda values: np.asarray([[*v, *[0] * (width - len(v))] for v in values], np.int32)
    ids, mask = fill([ids for ids, _ in rendered]), fill([mask for _, mask in rendered])
    inputs, targets = ids[:, :-1], np.where(mask[:, 1:] == 1, ids[:, 1:], -1)
    gpt, tx = GPT(SHAPE), optax.adam(1e-2)

    def loss(params):
        logits, _ = gpt.apply({"params": params}, inputs)
        return token_nll(logits, targets).sum() / (targets >= 0).sum()

    @jax.jit
    def learn(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = jax.jit(lambda key: (p := init_params(SHAPE, key), tx.init(p)))(
        jax.random.key(0)
    )
    for _ in range(steps):
        params, state = learn(params, state)
    return Model(gpt, params)


def config(**settings):
    """Four steps of two questions with four replies each, of at most twelve tokens."""
    small = dict(
        examples_per_step=2, num_samples=4, max_new_tokens=12, device_batch_size=2,
        num_iterations=4, eval_every=-1, save_every=2, sample_every=-1, mesh="1",
        mixture=("exchanges:sums",), val_mixture=("exchanges:sums",),
    )  # fmt: skip
    own = {k: settings.pop(k) for k in list(settings) if hasattr(OptimConfig, k)}
    optim = OptimConfig(**{**DEFAULTS["classic"]["rl"], **own})
    return RLTrain(optim=optim, **(small | settings))


def arrays(step: pathlib.Path):
    """The parameters of a checkpoint, as bytes."""
    leaves = jax.tree_util.tree_leaves_with_path(store.Saved(step, {}).params())
    return {jax.tree_util.keystr(k): np.asarray(v).tobytes() for k, v in leaves}
