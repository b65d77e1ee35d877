"""`convert push`, with the real client of the Hugging Face hub and a stand-in of the hub itself."""

import dataclasses
import json
import re
import shlex

import numpy as np
import pytest
import yaml

from nanochat_jax import report
from nanochat_jax.checkpoint import find_checkpoint
from nanochat_jax.config import flags
from nanochat_jax.config.convert import COMMANDS, Push
from nanochat_jax.data import importer, ledger
from nanochat_jax.data.shards import find_shards
from nanochat_jax.interop import huggingface, llama, model_card
from nanochat_jax.results import CONTAMINATION, DATA, EVALUATION, Check, Score, Section
from scripts import convert
from tests.interop.hub_standin import TOKEN, Repo, serving
from tests.interop.nanochat_files import folder_of, meta_of, state_of, take
from tests.test_guide import commands, parse

GGUF = ["--repo", "ada/d3", "--format", "gguf"]
SCORES = [Score("GSM8K", 0.25, "share", 0.2, 0.31, n=200), Score("val bpb", 1.25)]


def evaluation(root, **other):
    """The section of an evaluation of the model there; `other` says what was another's."""
    identity = find_checkpoint("sft", "d3", 7, root).identity
    doubts = [Check("GSM8K", "it says nothing", sound=False)]
    return Section(EVALUATION["sft"], figures=identity | other, scores=SCORES, checks=doubts)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base directory with an SFT model of the classic recipe, and a report of it."""
    path = tmp_path_factory.mktemp("push")
    theirs = folder_of(path / "theirs", state_of("A"), meta_of("A"))
    (theirs / "base_checkpoints").rename(theirs / "chatsft_checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCHAT_BASE_DIR", str(path / "base"))
        take(theirs)
    # What lies there is not what somebody else's model was trained on.
    data = {"source": "my books", "training documents": 12345}
    report.write(path / "base", Section(DATA, figures=data))
    done = evaluation(path / "base")
    report.write(path / "base", done)
    search = [Check("GSM8K", "none of its rows was found")]
    report.write(path / "base", Section(CONTAMINATION["sft"], figures=done.figures, checks=search))
    return path / "base"


@pytest.fixture
def hub(root, tmp_path, monkeypatch):
    """The stand-in, where the client looks for the hub; nobody's own token is read."""
    from huggingface_hub import constants

    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(root))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    # Settings that it reads from the environment when it is imported. The stand-in speaks LFS.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(llama, "here", lambda: False)  # tests/interop/test_gguf.py asks it
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def push(tmp_path, capsys):
    """Runs the program with the arguments and a folder; returns what it said."""

    def run(*argv, folder="out"):
        assert convert.main(["push", *argv, "--dir", str(tmp_path / folder)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs the program, which must refuse in one line; returns it."""

    def run(*argv, folder="out"):
        with pytest.raises(SystemExit) as stop:
            convert.main(["push", *argv, "--dir", str(tmp_path / folder)])
        assert stop.value.code == 2
        error = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert len(error) == 1
        assert len(error) == 1
        return error[0]

    return run


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def test_without_yes_all_is_written_and_told_and_nothing_is_sent(hub, push, tmp_path):
    said = push("--repo", "ada/d3")
    assert not hub.requests
    files = files_of(tmp_path / "out" / "model")
    # For transformers and vLLM, llama.cpp, ollama, and for this program to take back.
    assert {"config.json", "d3-bf16.gguf", "Modelfile", "huggingface/config.json"} <= set(files)
    assert json.loads(files["config.json"])["model_type"] == "apertus"
    for name, data in files.items():
        assert f"{len(data):,} bytes  {name}\n" in said
    assert files["README.md"].decode() in said
    assert "soft cap" in said and "nothing was sent" in said

    typed = shlex.split(said.rpartition("as it stands there: python -m scripts.convert ")[2])
    again = flags.command(COMMANDS, typed)
    assert again == Push(repo="ada/d3", dir=str(tmp_path / "out"), yes=True)

    back = huggingface.load(tmp_path / "out" / "model" / "huggingface")
    state = state_of("A")["lm_head.weight"]
    np.testing.assert_array_equal(back.params["lm_head"]["kernel"].T, state)


def test_the_card_says_what_it_is_how_it_scored_and_how_to_run_it(hub, push, tmp_path, monkeypatch):
    push("--repo", "ada/d3", "--license", "cc-by-4.0")
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-generation" and "conversational" in front["tags"]
    for line in (
        "| GSM8K | 25.0% | 20.0% to 31.0% | 200 |", "| val bpb | 1.2500 | - | - |",
        "- GSM8K: it says nothing\n- GSM8K: none of its rows was found\n",
        "- recipe: classic", "- steps: 7",
        "--hf-file d3-bf16.gguf", "ollama create d3 -f d3/Modelfile", "vllm serve ada/d3",
        "/v1/chat/completions",
    ):  # fmt: skip
        assert line in card
    assert "### Data" not in card and "12,345" not in card
    ours = commands(card)
    assert [name for name, *_ in ours] == ["convert", "chat_cli", "chat_web"]
    for name, *argv in ours:
        parse(name, argv)
    # The first is run, on the folder that was to be downloaded.
    take_back = [word.replace("d3/", f"{tmp_path}/out/model/") for word in ours[0][1:]]
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "elsewhere"))
    assert convert.main(take_back) == 0
    assert (tmp_path / "elsewhere/chatsft_checkpoints/d3/000000/params").exists()
    (python,) = re.findall(r"```python\n(.*?)```", card, re.S)
    compile(python, "card", "exec")
    assert "{" not in card.replace(python, "").replace('{"', "")
    assert "\n\n\n" not in card


def test_yes_sends_what_was_read_edits_and_all_and_again_sends_nothing_twice(hub, push, tmp_path):
    push(*GGUF)
    card = tmp_path / "out" / "model" / "README.md"
    card.write_text(card.read_text() + "\nTrained on a rainy Sunday.\n")
    said = push(*GGUF, "--private", "--yes")
    repo = hub.repos["models/ada/d3"]
    assert repo.private and repo.commits == 1
    assert hub.sent("models/ada/d3") == files_of(tmp_path / "out" / "model")
    assert b"rainy Sunday" in repo.files["README.md"]
    assert len(hub.objects) == 1  # the GGUF file went as a large one
    assert said.splitlines()[-1].startswith(f"sent: {hub.url}/ada/d3/commit/")

    hub.requests.clear()
    push(*GGUF, "--private", "--yes")
    assert repo.commits == 1 and not [r for r in hub.requests if r.startswith("PUT")]


def test_a_space_runs_the_pushed_file_in_llama_cpps_own_image(hub, push, tmp_path):
    push(*GGUF, "--space", "--yes")
    space = hub.repos["spaces/ada/d3"]
    assert space.sdk == "docker" and set(hub.sent("spaces/ada/d3")) == {"README.md", "Dockerfile"}
    front = yaml.safe_load(space.files["README.md"].decode().split("---")[1])
    assert front["sdk"] == "docker" and front["app_port"] == 7860
    image = space.files["Dockerfile"].decode()
    assert "ada/d3/resolve/main/d3-bf16.gguf /model.gguf" in image
    arguments = json.loads(image.split("CMD ")[1].replace("\\\n", ""))
    assert arguments[arguments.index("--ctx-size") + 1] == "64"
    assert "d3-bf16.gguf" in hub.sent("models/ada/d3")


def test_a_model_that_only_nanochats_format_holds_goes_in_that(hub, push, tmp_path):
    push("--repo", "ada/d3", "--format", "nanochat")
    model = tmp_path / "out" / "model"
    assert (model / "nanochat/chatsft_checkpoints/d3/model_000007.pt").exists()
    assert not list(model.rglob("optim*"))
    card = (model / "README.md").read_text()
    assert "convert import --dir d3/nanochat --format nanochat -i sft --as d3" in card
    assert not [x for x in ("llama-", "ollama", "import AutoModel", "vllm") if x in card]


@pytest.mark.parametrize(
    "other",
    [{"checkpoint step": 5}, {"checkpoint tag": "d4"}, {"checkpoint digest": "0123456789abcdef"}],
)
def test_scores_of_another_model_are_not_this_ones(root, other):
    saved, command = find_checkpoint("sft", "d3", 7, root), Push(repo="ada/d3", source="sft")
    report.write(root, evaluation(root, **other))
    try:
        card = model_card.text(command, saved, root)
    finally:
        report.write(root, evaluation(root))
    assert "None were taken of this model." in card and "GSM8K" not in card
    assert "| GSM8K | 25.0%" in model_card.text(command, saved, root)


def test_the_data_are_those_that_the_checkpoint_tells_of(root, tmp_path):
    lines = (json.dumps({"text": f"On day {i} the cat sat on the mat."}) for i in range(90))
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    importer.add_documents(tmp_path, [tmp_path / "text.jsonl"])
    saved = find_checkpoint("sft", "d3", 7, root)
    shards = ledger.of_shards(find_shards(tmp_path)) | {"micro_rows": 4}
    base = dataclasses.replace(saved, meta=saved.meta | {"data": shards})
    card = model_card.text(Push(repo="ada/d3", source="base"), base, root)
    told = (
        "- folder: base_data",
        "- training shards: 1",
        f"- digest of all shards: {shards['hash']}",
    )
    assert "### Data of its pretraining\n\n" + "\n".join(told) + "\n" in card
    mixture = {"tasks": [["SmolTalk", 460341], ["GSM8K", 7473]], "files": {}}
    sft = dataclasses.replace(saved, meta=saved.meta | {"data": mixture})
    card = model_card.text(Push(repo="ada/d3", source="sft"), sft, root)
    told = "- rows of SmolTalk: 460,341\n- rows of GSM8K: 7,473\n"
    assert f"### Data of its last stage\n\n{told}" in card


def test_a_folder_of_another_push_or_of_something_else_is_left_alone(hub, push, refused, tmp_path):
    push(*GGUF)
    assert "holds something else than this push; type `rm -r" in refused(*GGUF, "--quant", "q8_0")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("text")
    refused(*GGUF, folder="books")
    assert files_of(tmp_path / "books") == {"one.txt": b"text"}


@pytest.mark.parametrize(
    "argv, message",
    [(["--repo", "d3", "--format", "gguf"], "expected USER/NAME"),
     (["--repo", "ada/a--b", "--format", "gguf"], "expected USER/NAME"),
     (["--repo", "ada/d3", "--format", "gguf", "gguf"], "each once"),
     ([*GGUF, "--space", "--private"], "leave --space or --private out"),
     (["--repo", "ada/d3", "--format", "apertus", "--space"], "add gguf to --format"),
     ([*GGUF, "-s", "3"], "steps found: 7")],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(
    hub, refused, argv, message, tmp_path
):
    assert message in refused(*argv)
    assert not hub.requests and not (tmp_path / "out").exists()


ME = "GET /api/whoami-v2"


@pytest.mark.parametrize(
    "at, status, message",
    [(ME, 401, "the token is not valid; type `hf auth login`"),
     ("POST /api/repos/create", 403, "the token may not write there"),
     ("POST /api/repos/create", 402, "asks for a subscription"),
     ("PUT /lfs/", 403, "the token may not write there"),
     ("/commit/main", 413, "push fewer formats"), ("/commit/main", 418, "the same command again")],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_line_with_what_to_do(hub, refused, at, status, message):
    hub.refusals[at] = status
    said = refused(*GGUF, "--yes")
    assert f"({status}: " in said and message in said
    assert not any(repo.commits for repo in hub.repos.values())


@pytest.mark.parametrize(
    "there, message",
    [(Repo(private=True, files={"my.bin": b"1"}),
      "files that are not of this push; .* `hf repos delete-files ada/d3 my.bin`"),
     (Repo(private=False), "public, .* `hf repos settings ada/d3 --private`")],
)  # fmt: skip
def test_a_repository_of_something_else_is_left_alone(hub, refused, there, message):
    hub.repos["models/ada/d3"] = there
    assert re.search(message, refused(*GGUF, "--private", "--yes"))
    assert not [request for request in hub.requests if not request.startswith("GET ")]


@pytest.mark.parametrize(
    "setting, value, message",
    [("ENDPOINT", "http://127.0.0.1:9", "http://127.0.0.1:9 was not reached: .*; check the netw"),
     ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set; unset it")],
)  # fmt: skip
def test_no_network_is_one_line(hub, refused, monkeypatch, setting, value, message):
    monkeypatch.setattr(f"huggingface_hub.constants.{setting}", value)
    assert re.search(message, refused(*GGUF, "--yes"))


def test_without_a_token_nobody_is_asked(hub, refused, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "no token for the Hugging Face hub; type `hf auth login`" in refused(*GGUF, "--yes")
    assert not hub.requests
