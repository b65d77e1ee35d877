"""A step that trains adapters, compiled for a card: the weights' gradients are not made."""

from nanochat_jax.aot import programs, target
from nanochat_jax.aot.cards import card
from nanochat_jax.aot.work import work
from nanochat_jax.config.gpt import GPTConfig, matmul_params
from nanochat_jax.config.stages import SFTTrain

SHAPE = dict(n_layer=2, n_head=4, n_kv_head=4, n_embd=512)
CFG = GPTConfig(sequence_len=1024, vocab_size=8192, **SHAPE)
ROWS = dict(device_batch_size=4, target_examples_per_step=4, max_seq_len=1024)


def products(program: programs.Program) -> float:
    """FLOPs of a step on tensor cores, attention's own left out."""
    module, times = program.module, program.module.runs()
    done = ((name, work(module, module.computations[name], i)) for name, i in module.launched())
    return sum(times.get(name, 1) * what.flops for name, what in done if what.unit == "products")


def test_a_step_of_adapters_makes_no_gradient_of_the_weights():
    gpu = dict(attention="cudnn", remat="none", dtype="bfloat16")
    config = SFTTrain(**ROWS, **gpu, lora_rank=8, lora_optimizer="adamw")
    program = programs.step(config, CFG, target.mesh(card("h100-80gb"), "1"))
    # A weight costs two forward and two on the way back through it; its gradient were two more.
    each = products(program) / (matmul_params(CFG) * program.tokens)
    assert 3.9 < each < 4.4
