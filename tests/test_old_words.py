"""The original's words answer: each command and flag is one of ours, or says what to type."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat_jax.checkpoint import load_model
from nanochat_jax.config import data, flags, old_words
from nanochat_jax.config.old_words import COMMANDS, MODULES, translated
from nanochat_jax.config.resolve import SECTIONS, resolve
from nanochat_jax.config.typed import table_of

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / old_words.DOCUMENT).read_text(encoding="utf-8")
# The original's flags that are called the same here.
RATES = "embedding-lr unembedding-lr matrix-lr weight-decay"
SAME = {
    "nanochat.dataset": "num-files num-workers",
    "scripts.tok_train": "max-chars doc-cap vocab-size",
    "scripts.base_train": (
        "run device-type depth aspect-ratio head-dim max-seq-len window-pattern "
        "num-iterations target-flops target-param-data-ratio device-batch-size "
        f"total-batch-size {RATES} scalar-lr grad-clip warmup-ratio warmup-steps "
        "warmdown-ratio final-lr-frac resume-from-step eval-every eval-tokens "
        "core-metric-every core-metric-max-per-task sample-every save-every model-tag fp8"
    ),
    "scripts.base_loss": "device-batch-size split-tokens model-tag device-type",
    "scripts.base_eval": "device-batch-size split-tokens model-tag step device-type",
    "scripts.mid_train": (
        "run device-type model-tag step dtype num-iterations max-seq-len device-batch-size "
        f"{RATES} init-lr-frac eval-every eval-tokens total-batch-size"
    ),
    "scripts.chat_sft": (
        "run source model-tag step device-type dtype device-batch-size num-epochs "
        f"num-iterations target-examples-per-step total-batch-size max-seq-len {RATES} "
        "init-lr-frac warmup-ratio warmdown-ratio final-lr-frac load-optimizer eval-every "
        "eval-steps eval-tokens eval-metrics-every eval-metrics-max-problems chatcore-every "
        "chatcore-max-cat chatcore-max-sample"
    ),
    "scripts.chat_rl": (
        "run source model-tag step device-type dtype num-epochs device-batch-size "
        f"examples-per-step num-samples max-new-tokens temperature top-k {RATES} init-lr-frac "
        "eval-every eval-examples save-every"
    ),
    "scripts.chat_eval": (
        "source task-name dtype temperature max-new-tokens num-samples top-k batch-size "
        "model-tag step max-problems device-type"
    ),
    "scripts.chat_cli": "source model-tag step prompt temperature top-k device-type dtype",
    "scripts.chat_web": (
        "num-gpus source temperature top-k max-tokens model-tag step port dtype device-type host"
    ),
}


def program(ours: str) -> type:
    """The dataclass of one of our programs."""
    words = ours.split()
    if words[0] == "scripts.data":
        return data.COMMANDS[words[1]]
    if words[0] == "scripts.train":
        return SECTIONS[words[-1]]
    return SECTIONS[words[0].removeprefix("scripts.")]


def listed() -> list[tuple[str, str, str]]:
    """(command of the original, its flag, ours)."""
    found = [(name, flag, flag) for name, same in SAME.items() for flag in same.split()]
    return found + [(n, f, new) for n, c in COMMANDS.items() for f, new in c.other.items()]


@pytest.mark.parametrize(("name", "flag", "new"), listed())
def test_every_flag_of_the_original_is_one_of_ours(name, flag, new):
    ours = COMMANDS[name].ours if name in COMMANDS else name
    assert f"--{new}" in table_of(program(ours))
    if name in COMMANDS:
        assert translated(name, ["--", f"--{flag.replace('-', '_')}=1"])[-1].replace("_", "-") == (
            f"--{new}=1"
        )


@pytest.mark.parametrize(
    ("name", "argv", "settings"),
    [
        (
            "scripts.base_train",
            "--depth=4 --max_seq_len=1024 --device_batch_size=1 --total_batch_size=1024 "
            "--eval_every=50 --eval_tokens=4096 --core_metric_every=50 --num_iterations=50 "
            "--core_metric_max_per_task=12 --sample_every=50 --target_param_data_ratio=20 --run=x",
            dict(depth=4, max_seq_len=1024, total_batch_size=1024, num_iterations=50, run="x"),
        ),
        ("scripts.base_train", "-- --depth=24 --fp8 --save-every=-1", dict(depth=24, fp8=True)),
        ("scripts.base_loss", "--model-step=3 --split_tokens=4096", dict(step=3, tasks="bpb")),
        ("scripts.base_eval", "--max-per-task=16 --eval core,bpb", dict(tasks="core,bpb")),
        ("scripts.chat_eval", "-- -i mid -a GSM8K", dict(source="mid", tasks="GSM8K")),
        ("scripts.chat_sft", "--eval_steps=4 --chatcore-every=9", dict(eval_metrics_every=9)),
        ("scripts.mid_train", "--dry_run=0 --num_iterations=100", dict(num_iterations=100)),
        ("scripts.chat_rl", "--num_samples=16", dict(num_samples=16)),
        ("scripts.tok_train", "--max_chars=2000000000", dict(max_chars=2_000_000_000)),
    ],
)
def test_commands_as_its_scripts_type_them_are_translated(name, argv, settings):
    module, *rest = translated(name, argv.split())
    stage, rest = flags.take(rest, "stage")
    config = resolve(stage or module.removeprefix("scripts."), rest)
    assert {key: getattr(config, key) for key in settings} == settings


@pytest.mark.parametrize(
    ("name", "argv", "said"),
    [
        ("scripts.base_train", "--fp8-recipe=rowwise", "--fp8 scales whole tensors"),
        ("scripts.base_eval", "--hf-path openai/gpt2", "convert import --format huggingface"),
        ("scripts.mid_train", "--dry_run=1", "another name: --model-tag try"),
        ("scripts.chat_sft", "--mmlu-epochs=3", r"--mixture SmolTalk MMLU:auxiliary_train\*3"),
        ("scripts.base_train", "config/mine.py", "settings are a TOML file here: --config FILE"),
        ("scripts.infer_bench", "", "speed of decoding: python bench/decode.py"),
    ],
)
def test_what_has_no_counterpart_says_what_to_type(name, argv, said):
    with pytest.raises(ValueError, match=said):
        translated(name, argv.split())


def typed(*argv: str, **variables: str) -> subprocess.CompletedProcess:
    env = {**os.environ, **variables}
    return subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, env=env, timeout=120
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "argv", "new"),
    [
        ("scripts.base_train", "-- --help", "scripts.train --stage base --help"),
        ("nanochat.dataset", "-n 0", "scripts.data download -n 0"),
    ],
)
def test_an_old_command_says_its_new_name_and_is_that(module, argv, new):
    done = typed(sys.executable, "-m", module, *argv.split())
    assert done.stderr.startswith(f"{module} is now: python -m {new}\n")
    shown = done.stdout.startswith("usage: python -m scripts.train --stage base")
    assert shown and not done.returncode or "error: --num-files is 0" in done.stderr


def test_of_torchrun_s_processes_one_works_with_all_devices():
    command = [sys.executable, "-m", "scripts.base_train", "--", "--depth=x"]
    variables = dict(TORCHELASTIC_RUN_ID="1", LOCAL_WORLD_SIZE="2", WORLD_SIZE="2")
    first = typed(*command, **variables, RANK="0", LOCAL_RANK="0")
    assert "scripts.train --stage base --depth=x --mesh 2" in first.stderr
    assert "error: --depth is 'x'" in first.stderr and first.returncode == 2
    other = typed(*command, **variables, RANK="1", LOCAL_RANK="1")
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")


@pytest.mark.parametrize("module", MODULES)
def test_an_import_of_the_original_says_what_to_write(module):
    old_words.install()
    with pytest.raises(ImportError, match=re.escape(MODULES[module])):
        exec(old_words.Answer().find_spec(module).loader.get_code(module))
    exec(MODULES[module])  # what is written instead, works


def test_the_original_s_way_to_load_a_model_says_ours(base_dir):
    with pytest.raises(TypeError, match=r"no device.*no phase.*: load_model\('sft'\)"):
        load_model("sft", "cuda", phase="eval")
    with pytest.raises(TypeError, match=r"load_model\('sft'\)"):
        load_model("sft", object())


def test_speedrun_sh_is_make_speedrun():
    done = typed("bash", "speedrun.sh", "--config", "d20", MAKEFLAGS="--dry-run")
    assert "speedrun.sh is now: make speedrun" in done.stderr
    assert "-m scripts.speedrun --config d20" in done.stdout


def rows() -> list[str]:
    """The document's lines about commands and flags, as the table has them."""
    code = lambda words: ", ".join(f"`--{word}`" for word in words)
    found = []
    for name, c in COMMANDS.items():
        ours = f"`python -m {c.ours}`" if c.ours else "-"
        found.append(f"| `python -m {name}` | {ours} | {c.note} |")
        found += [f"| `{name.split('.')[1]} --{f}` | `--{new}` | |" for f, new in c.other.items()]
        found += [f"| `{name.split('.')[1]} --{f}` | - | {why} |" for f, why in c.gone.items()]
    found += [f"| `{n.split('.')[1]}` | {code(f.split())} |" for n, f in SAME.items()]
    return found + [f"| `{module}` | `{ours}` |" for module, ours in MODULES.items()]


@pytest.mark.parametrize("row", rows())
def test_the_document_shows_the_table(row):
    assert row in DOCUMENT.split("\n")
