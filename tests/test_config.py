"""Defaults, recipe, file, flags: the last wins, and what is unknown is named."""

import dataclasses
import pathlib

import pytest

from nanochat_jax.config import load as config_load
from nanochat_jax.config.stages import SECTIONS, BaseTrain, Eval, SFTTrain, recipes_of


def load(cls, section, *argv, **kw):
    return config_load.load(
        cls, argv, section=section, sections=SECTIONS, recipes=recipes_of(section), **kw
    )


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        'recipe = "current"\nmatrix_lr = 0.5\n[base]\ndepth = 4\nwindow_pattern = "L"\n'
    )
    config = load(BaseTrain, "base", f"--config={path}", "--depth", "6")
    assert (config.depth, config.window_pattern, config.optim.matrix_lr) == (6, "L", 0.5)
    assert config.loader == "bestfit" and config.optim.muon == "polar_express"


def test_a_table_belongs_to_its_program_alone(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("max_seq_len = 64\n[base]\nmax_seq_len = 32\n")
    assert load(BaseTrain, "base", f"--config={path}").max_seq_len == 32
    assert load(SFTTrain, "sft", f"--config={path}").max_seq_len == 64


def test_dashes_and_underscores_are_the_same():
    assert load(BaseTrain, "base", "--device_batch_size=2", "--max-seq-len", "8").max_seq_len == 8


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
        load(BaseTrain, "base", f"--config={path}")


def test_a_missing_file_lists_those_there_are(tmp_path):
    (tmp_path / "a.toml").write_text("")
    with pytest.raises(ValueError, match=r"a\.toml"):
        load(BaseTrain, "base", f"--config={tmp_path / 'b.toml'}")


@pytest.mark.parametrize("flag", ["--dpeth=3", "--dept", "--matix-lr", "--matix_lr=1"])
def test_an_unknown_flag_names_the_nearest_one(flag):
    with pytest.raises(ValueError, match="did you mean --(depth|matrix-lr)"):
        load(BaseTrain, "base", flag)


def test_another_name_of_a_flag_is_known():
    assert load(Eval, "eval", "--task-name=core", "-i", "base").tasks == "core"


def test_what_a_run_computes_does_not_depend_on_how_it_is_watched():
    one = load(BaseTrain, "base", "--depth=4", "--eval-every=7", "--run=x")
    two = load(BaseTrain, "base", "--depth=4", "--sample-every=9")
    assert config_load.fingerprint(one) == config_load.fingerprint(two)
    other = dataclasses.replace(one, depth=6)
    assert config_load.fingerprint(one) != config_load.fingerprint(other)


def test_a_resumed_run_takes_its_own_earlier_settings_but_flags_win():
    first = load(BaseTrain, "base", "--depth=4", "--matrix-lr=0.7", "--total-batch-size=64")
    again = load(
        BaseTrain, "base", "--resume", "--num-iterations=9", saved=config_load.flatten(first)
    )
    assert (again.depth, again.optim.matrix_lr, again.num_iterations) == (4, 0.7, 9)
    assert again.resume


def test_the_shipped_configs_are_valid_for_every_program():
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.toml"):
        for section, cls in SECTIONS.items():
            assert load(cls, section, f"--config={path}").config == str(path)


@pytest.mark.parametrize("errors", [OSError(28, "No space left on device", "a/b"), OSError(28, "")])
def test_a_full_disk_is_told_with_what_to_do(errors, capsys):
    with pytest.raises(SystemExit) as left, config_load.friendly_errors():
        raise errors
    said = capsys.readouterr().err
    assert left.value.code == 1 and "make room" in said and "NANOCHAT_BASE_DIR" in said
