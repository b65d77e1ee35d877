"""Every stage of a run and its scores, in two processes as in one."""

import pytest

from nanochat_jax.files import read_json_lines
from tests.evals import core_bundles
from tests.hosts import world
from tests.tasks.made_files import write_task_files
from tests.train import rl_world

# Each starts two programs that compile, on machines of any speed.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_every_stage_and_its_scores_are_those_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for root, processes in ((one, 1), (two, 2)):
        world.run(root, "speedrun --rl", processes, 2)
    for stage in ("base", "mid", "chatsft"):
        world.same_curve(one, two, stage)
    rewards = [world.numbers(root, "train/reward", "chatrl") for root in (one, two)]
    assert len(rewards[0]) == 2 and rewards[0] == rewards[1]
    assert (two / "report" / "report.md").exists()


def test_scores_and_answers_are_those_of_one_process(tmp_path):
    """CORE, letters and written answers: the files with every graded question, line by line."""
    files = write_task_files(tmp_path / "files")
    core_bundles.three(files / "core_eval")
    found = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        rl_world.write_sft(root, rl_world.taught(rl_world.CHATS, 0))
        tasks = f"eval -i sft -a core,GSM8K,ARC-Easy --task-data {files}"
        world.run(root, tasks, processes, 2)
        found.append({path.name: files_read(path) for path in root.glob("eval/**/*.jsonl")})
    one, two = found
    assert len(one) == 5 and one.keys() == two.keys()
    for name in one:
        assert_alike(one[name], two[name])


def files_read(path):
    """The lines of an answers file, in the order of their questions."""
    first, *rest = read_json_lines(path)
    return [first, *sorted(rest, key=lambda line: line["question"])]


def assert_alike(one, other):
    """Equal, numbers up to the order in which float32 numbers are summed."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_alike(*pair)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)
    else:
        assert one == other
