"""Defaults, recipe, file, flags: the last wins, and what is unknown is named."""

import dataclasses
import pathlib

import pytest

from nanochat_jax.config import flags
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.gpt import GPTConfig, dials_of, shape_of_depth
from nanochat_jax.config.resolve import SECTIONS, read, resolve, settle
from nanochat_jax.config.saving import Cadence, Keep, best_first
from nanochat_jax.config.stages import RECIPES, STAGES
from nanochat_jax.config.values import build, completed, digest, fields, fingerprint, flatten

# The fields that do not decide a result, as they stood when the first models were trained. Their
# fingerprints are on people's disks: a stage counts as done only while exactly these are left out.
EVERY_STAGE = (
    "config device_type mesh simulate_devices run resume resume_from_step init eval_every "
    "eval_tokens sample_every save_every keep on_nan strict attention remat reduce_dtype"
)
PROCESSES = "coordinator num_processes process_id"
EVERY_STAGE += f" {PROCESSES}"
LEFT_OUT = {
    "tokenizer": f"config device_type num_shards {PROCESSES}",
    "base": f"{EVERY_STAGE} core_metric_every core_metric_max_per_task fp8",
    "mid": f"{EVERY_STAGE} task_data",
    "sft": f"{EVERY_STAGE} task_data eval_steps eval_metrics_every eval_metrics_tasks "
    "eval_metrics_max_problems chatcore_max_sample",
    "rl": f"{EVERY_STAGE} task_data eval_examples eval_samples",
}
PER_CALL = set(
    "resume resume_from_step init run device_type mesh simulate_devices strict attention "
    f"remat {PROCESSES}".split()
)


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        'recipe = "current"\nmatrix_lr = 0.5\n[base]\ndepth = 4\nwindow_pattern = "L"\n'
    )
    config = resolve("base", [f"--config={path}", "--depth", "6"])
    assert (config.depth, config.window_pattern, config.optim.matrix_lr) == (6, "L", 0.5)
    assert config.loader == "bestfit" and config.optim.muon == "polar_express"


def test_a_table_belongs_to_its_program_alone(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("max_seq_len = 64\n[base]\nmax_seq_len = 32\n")
    assert resolve("base", [f"--config={path}"]).max_seq_len == 32
    assert resolve("sft", [f"--config={path}"]).max_seq_len == 64


def test_dashes_and_underscores_are_the_same():
    assert resolve("base", ["--device_batch_size=2", "--max-seq-len", "8"]).max_seq_len == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bass]\ndepth = 4\n", "did you mean 'base'"),
        ("[base]\ndpeth = 4\n", "did you mean 'depth'"),
        ("max_seq_le = 4\n", "did you mean 'max_seq_len'"),
        ('[base]\ndepth = "four"\n', "expected int"),
        ("[base\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, said):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        resolve("base", [f"--config={path}"])


@pytest.mark.parametrize("section", STAGES)
def test_an_unknown_recipe_in_a_file_or_a_flag_names_those_there_are(section, tmp_path):
    (path := tmp_path / "c.toml").write_text('recipe = "modern"\n')
    for argv in ([f"--config={path}"], ["--recipe=modern"]):
        with pytest.raises(ValueError, match="expected one of classic, current, portable"):
            resolve(section, argv)


def test_a_missing_file_lists_those_there_are(tmp_path):
    (tmp_path / "a.toml").write_text("")
    with pytest.raises(ValueError, match=r"a\.toml"):
        resolve("base", [f"--config={tmp_path / 'b.toml'}"])


@pytest.mark.parametrize("flag", ["--dpeth=3", "--dept", "--matix-lr", "--matix_lr=1"])
def test_an_unknown_flag_names_the_nearest_one(flag):
    with pytest.raises(ValueError, match="did you mean --(depth|matrix-lr)"):
        resolve("base", [flag])


def test_another_name_of_a_flag_is_known():
    assert resolve("eval", ["--task-name=core", "-i", "base"]).tasks == "core"


def test_what_a_run_computes_does_not_depend_on_how_it_is_watched():
    one = resolve("base", ["--depth=4", "--eval-every=7", "--run=x"])
    two = resolve("base", ["--depth=4", "--sample-every=9"])
    assert fingerprint(one) == fingerprint(two)
    other = dataclasses.replace(one, depth=6)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("stage", STAGES)
def test_a_fingerprint_leaves_out_what_it_always_left_out(stage):
    config = STAGES[stage]()
    assert set(flatten(config)) - set(fingerprint(config)) == set(LEFT_OUT[stage].split())


def test_a_resumed_run_takes_over_all_but_what_belongs_to_the_call():
    typed = dict(run="theirs", mesh="2", device_type="cpu", init="x", resume_from_step=3)
    typed |= dict(coordinator="node1:1234", num_processes=2, process_id=1)
    typed |= dict(attention="xla", remat="full", fp8=True, reduce_dtype="bfloat16")
    typed |= dict(strict=True)
    saved = flatten(STAGES["base"](**typed, resume=True, simulate_devices=True, depth=3, seed=7))
    again, usual = flatten(settle(read("base"), saved=saved)), flatten(STAGES["base"]())
    assert {name for name in saved if again[name] != saved[name]} == PER_CALL
    assert all(again[name] == usual[name] for name in PER_CALL)


def test_a_resumed_run_takes_its_own_earlier_settings_but_flags_win():
    first = resolve("base", ["--depth=4", "--matrix-lr=0.7", "--total-batch-size=64"])
    layers = read("base", ["--resume", "--num-iterations=9"])
    again = settle(layers, saved=flatten(first))
    assert (again.depth, again.optim.matrix_lr, again.num_iterations) == (4, 0.7, 9)
    assert again.resume


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stage", STAGES)
def test_settings_read_back_from_a_checkpoint_have_the_digest_they_were_saved_with(stage, recipe):
    """A default of 20 where 20.0 belongs comes back as 20.0: equal, and of another digest."""
    config = resolve(stage, [f"--recipe={recipe}"])
    saved = flatten(config)
    assert digest(flatten(build(STAGES[stage], saved))) == digest(saved)


def test_a_resumed_run_takes_the_mesh_of_its_file_and_nothing_else(tmp_path):
    """Without it the run would go on on another number of devices, and not to the same bytes."""
    file = tmp_path / "c.toml"
    file.write_text('mesh = "1"\nseed = 3\n[base]\nattention = "blocks"\ndepth = 5\n')
    layers = read("base", [f"--config={file}", "--resume"])
    again = settle(layers, saved=flatten(STAGES["base"](mesh="2", seed=7, depth=4)))
    assert (again.mesh, again.attention) == ("1", "blocks")
    assert (again.seed, again.depth) == (7, 4)
    assert settle(read("base", [f"--config={file}", "--mesh=4"]), saved={}).mesh == "4"


def test_the_shipped_configs_are_valid_for_every_program():
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.toml"):
        for section in SECTIONS:
            assert resolve(section, [f"--config={path}"]).config == str(path)


@pytest.mark.parametrize("errors", [OSError(28, "No space left on device", "a/b"), OSError(28, "")])
def test_a_full_disk_is_told_with_what_to_do(errors, capsys):
    with pytest.raises(SystemExit) as left, friendly_errors():
        raise errors
    said = capsys.readouterr().err
    assert left.value.code == 1 and "make room" in said and "NANOCHAT_BASE_DIR" in said


def test_a_wrong_value_in_a_file_is_an_error_though_a_flag_covers_it(tmp_path):
    (path := tmp_path / "c.toml").write_text("[base]\ndepth = true\n")
    with pytest.raises(ValueError, match="depth is True .*expected int"):
        resolve("base", [f"--config={path}", "--depth=4"])


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["--depth=20", "--matrix_lr", "0.02"], {"depth": 20, "matrix_lr": 0.02}),
        (["-gmine", "--no-resume"], {"model_tag": "mine", "resume": False}),
        (["--sample-prompts", "a", "b"], {"sample_prompts": ("a", "b")}),
        (["-g", "--seed"], None),
        ([], {}),
    ],
)
def test_flags_that_were_typed_are_known_also_where_they_repeat_a_default(argv, typed):
    if typed is None:
        with pytest.raises(ValueError, match="-g has no value"):
            flags.parse(argv, STAGES["base"]())
    else:
        assert flags.parse(argv, STAGES["base"]()) == typed


@pytest.mark.parametrize(
    ("argv", "again"),
    [
        ("-m scripts.train base --depth=4", "-m scripts.train base --depth=4 --resume"),
        ("-m scripts.train --stage=sft --resume", "-m scripts.train --stage=sft --resume"),
        ("-m scripts.train base --init x", "-m scripts.train base --model-tag d1 --resume"),
        ("-m scripts.train base --init=x -g my", "-m scripts.train base -g my --resume"),
        ("-m scripts.train base --resume-from-step=3", "-m scripts.train base --resume"),
        ("scripts/train.py base", "scripts/train.py base --resume"),
        ("-u ../scripts/train.py --stage rl", "-u ../scripts/train.py --stage rl --resume"),
        ("-m scripts.speedrun --config d20", "-m scripts.speedrun --config d20"),
    ],
)
def test_the_command_to_go_on_is_the_one_that_was_typed_and_resume(argv, again, monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["/usr/bin/python3", *argv.split()])
    assert flags.to_go_on("d1") == f"python {again}"


def test_a_flag_has_its_other_value_in_the_command_to_go_on_and_to_repeat(monkeypatch):
    typed = "-m scripts.train base --on_nan=stop --resume-from-step 3 --depth 4"
    monkeypatch.setattr("sys.orig_argv", ["/usr/bin/python3", *typed.split()])
    rest = "python -m scripts.train base"
    assert flags.to_go_on("d4", on_nan="skip") == f"{rest} --depth 4 --on-nan skip --resume"
    assert flags.again(on_nan="skip") == f"{rest} --resume-from-step 3 --depth 4 --on-nan skip"


def test_a_tag_is_named_where_another_would_be_guessed(tmp_path):
    for name in ("d4", "d20", "my model"):
        (tmp_path / name / "000001").mkdir(parents=True)
        (tmp_path / name / "000001" / "meta.json").write_text("{}")
    said = [flags.tagged(tmp_path / name) for name in ("d4", "d20", "my model")]
    assert said == [" -g d4", "", " -g 'my model'"]


def test_every_program_s_fields_have_one_flag_each():
    for cls in SECTIONS.values():
        spellings = [a for field in fields(cls).values() for a in field.aliases]
        assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("depth", [1, 4, 12, 20, 26])
@pytest.mark.parametrize(("aspect_ratio", "head_dim"), [(64, 128), (32, 128), (60, 64), (16, 16)])
def test_the_dials_of_a_model_give_back_its_shape(depth, aspect_ratio, head_dim):
    cfg = GPTConfig(**shape_of_depth(depth, aspect_ratio, head_dim))
    dials = dials_of(cfg)
    again = shape_of_depth(dials["depth"], dials["aspect_ratio"], dials["head_dim"])
    assert GPTConfig(**again) == cfg


def test_a_checkpoint_of_a_version_with_more_names_is_read():
    kept = dataclasses.asdict(GPTConfig(n_layer=3)) | {"rope_factor": 10}
    assert GPTConfig.of(kept) == GPTConfig(n_layer=3)
    with pytest.raises(TypeError, match="n_layers"):
        GPTConfig.of({"n_layers": 3})


def test_ctrl_c_ends_a_program_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as left, friendly_errors():
        raise KeyboardInterrupt
    assert left.value.code == 130 and not capsys.readouterr().err


def test_a_cadence_is_a_time_a_number_of_steps_or_only_the_end():
    for text, seconds in (("15m", 900), ("90s", 90), ("2h", 7200), ("0.5h", 1800)):
        cadence = Cadence.of(text)
        assert cadence == Cadence(seconds=seconds)
        assert cadence.due(7, seconds) and not cadence.due(7, seconds - 1)
        assert not cadence.due(0, seconds)
    for given in (500, "500"):
        assert [s for s in range(1600) if Cadence.of(given).due(s, 1e9)] == [500, 1000, 1500]
    assert not Cadence.of(-1).due(500, 1e9) and Cadence.of("-1") == Cadence()


@pytest.mark.parametrize("text", ["0", "15 min", "m", "0s", "-5", "1d", "steps"])
def test_another_cadence_is_refused_by_name(text):
    with pytest.raises(ValueError, match="15m, 90s, 2h"):
        Cadence.of(text)
    with pytest.raises(ValueError, match="^--save-every is"):
        resolve("base", [f"--save-every={text}"])


def test_flags_and_files_take_both_kinds_of_cadence(tmp_path):
    (path := tmp_path / "c.toml").write_text('[base]\nsave_every = 250\n[mid]\nsave_every = "2h"\n')
    assert resolve("base", [f"--config={path}"]).save_every == 250
    assert resolve("mid", [f"--config={path}"]).save_every == "2h"
    assert resolve("base", [f"--config={path}", "--save-every", "90s"]).save_every == "90s"
    assert Cadence.of(resolve("base", ["--save-every", "-1"]).save_every) == Cadence()
    assert all(STAGES[s]().save_every == "15m" for s in STAGES if s != "tokenizer")


STEPS = [250, 500, 750, 1000, 1250, 2100, 2500]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("all", STEPS),
        ("last=3", [1250, 2100, 2500]),
        ("best=2", [500, 750, 2500]),
        ("every=1000", [1000, 2100, 2500]),
        ("last=2,best=1,every=1000", [750, 1000, 2100, 2500]),
        ("last=9", STEPS),
    ],
)
def test_what_is_kept(text, kept):
    """The first at or after each multiple, since steps that are saved by the clock meet none."""
    assert sorted(Keep.of(text).kept(STEPS, best_first=[750, 500, 250])) == kept
    assert Keep.of(text).kept([250]) == {250}


@pytest.mark.parametrize("text", ["", "3", "last", "last=0", "last=-1", "first=2", "last=1;best=1"])
def test_another_keep_is_refused(text):
    with pytest.raises(ValueError, match="last=3,best=1,every=1000"):
        Keep.of(text)


def test_the_best_step_has_the_least_bits_per_byte_or_the_highest_pass_rate():
    assert best_first({2: {"val/bpb": 1.5}, 4: {"val/bpb": 1.2}, 6: {}, 8: {"val/bpb": 1.2}}) == [
        8, 4, 2,
    ]  # fmt: skip
    assert best_first({2: {"val/pass@1": 0.5}, 4: {"val/pass@1": 0.7}}) == [4, 2]
    assert best_first({2: {}}) == []


@pytest.mark.parametrize("stage", ["base", "mid", "sft", "rl"])
def test_a_count_that_would_be_divided_by_is_refused_by_name(stage):
    known = fields(STAGES[stage])
    counts = [name for name in known if name.endswith(("_every", "_size", "_samples", "_len"))]
    assert {"eval_every", "sample_every", "save_every", "device_batch_size"} <= {*counts}
    for name in [*counts, "num_iterations"]:
        for value in (0, -2):
            with pytest.raises(ValueError, match=f"{name} is {value}; set it to"):
                dataclasses.replace(STAGES[stage](), **{name: value})
    with pytest.raises(ValueError, match="^--eval-every is 0; set it to"):
        resolve(stage, ["--eval-every=0"])
    never = [f"--{name}=-1" for name in known if name.endswith("_every")]
    assert resolve(stage, never).eval_every == -1


def test_a_file_of_training_is_taken_by_every_program_with_what_is_its_own(tmp_path):
    tables = [f"[{name}]\nrecipe = 'current'" for name in STAGES]
    text = "matrix_lr = 0.1\ndepth = 4\nmax_seq_len = 64\ntemperature = 0.5\n"
    path = tmp_path / "run.toml"
    path.write_text(text + "\n".join([*tables, "[chat_web]", "port = 8123"]))
    for program in ("chat_web", "chat_cli"):
        assert resolve(program, ["--config", str(path)]).temperature == 0.5
    assert resolve("chat_web", ["--config", str(path)]).port == 8123
    for config in sorted(pathlib.Path("configs").glob("*.toml")):
        for program in SECTIONS:
            assert resolve(program, ["--config", str(config)])


def test_a_fingerprint_of_an_earlier_version_has_new_fields_at_their_defaults():
    now = fingerprint(STAGES["tokenizer"](vocab_size=300))
    then = {name: value for name, value in now.items() if name != "digits"}
    assert completed(STAGES["tokenizer"], then) == now
    assert completed(STAGES["tokenizer"], None) is None
