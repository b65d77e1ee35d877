"""Downloads against a server of our own: whole files or none, whatever the server does."""

import collections
import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from nanochat_jax import speedrun
from nanochat_jax.config.program import Speedrun
from nanochat_jax.config.stages import BaseTrain, TokenizerTrain
from nanochat_jax.data import ahead, download, importer, manifest, shards
from nanochat_jax.train import tokenizer
from scripts import data as program


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes); `trouble` (path -> list of how to fail) comes first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.trouble: dict[str, list[str]] = {}
        self.requests: collections.Counter[str] = collections.Counter()
        self.ranges: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        server.requests[name] += 1
        trouble = server.trouble.get(name, [])
        how = trouble.pop(0) if trouble else "fine"
        if how == "500" or name not in server.files:
            self.send_error(500 if how == "500" else 404)
            return
        if how == "no HTTP":
            self.wfile.write(b"busy\r\n")
            return
        body, start = server.files[name], 0
        if "Range" in self.headers:
            server.ranges.append(self.headers["Range"])
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : len(body) // 2] if how == "cut" else body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "one.parquet"
    shards.write_shard(path, [f"text {i}" for i in range(2000)])
    return path.read_bytes()


def fetch(root, server, n=2, **kw):
    return download.shards(root, n, base_url=server.url, pause_s=0.001, **kw)


def test_shards_come_by_their_names_and_are_not_fetched_twice(tmp_path, server, parquet):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(3)}
    assert fetch(tmp_path, server, 2) == 2
    assert fetch(tmp_path, server, 3) == 3
    assert set(server.requests.values()) == {1}
    assert len(shards.list_shards(tmp_path / "base_data")) == 3


def test_a_server_error_and_a_cut_body_are_tried_again_from_where_it_broke(
    tmp_path, server, parquet
):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(2)}
    server.trouble = {"shard_00000.parquet": ["500", "no HTTP", "cut"]}
    fetch(tmp_path, server)
    assert (tmp_path / "base_data" / "shard_00000.parquet").read_bytes() == parquet
    assert server.ranges == [f"bytes={len(parquet) // 2}-"]


def test_the_digest_of_what_arrived_is_recorded_however_often_it_was_begun(
    tmp_path, server, parquet
):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(2)}
    server.trouble = {"shard_00000.parquet": ["cut", "500", "cut"], "shard_00001.parquet": ["500"]}
    fetch(tmp_path, server)
    expected = hashlib.sha256(parquet).hexdigest()
    entries = manifest.read(tmp_path / "base_data")
    assert [e.sha256 for e in entries.values()] == [expected] * 2
    assert [e.bytes for e in entries.values()] == [len(parquet)] * 2


def test_a_missing_shard_is_named_the_others_stay_and_no_rest_is_left(tmp_path, server, parquet):
    server.files = {"shard_00000.parquet": parquet}
    with pytest.raises(ValueError, match="shard_00001"):
        fetch(tmp_path, server)
    here = sorted(p.name for p in (tmp_path / "base_data").iterdir())
    assert here == ["manifest.json", "shard_00000.parquet"]
    assert server.requests["shard_00001.parquet"] == 1  # it is not there: no use to ask again


def test_where_not_one_shard_comes_it_is_given_up_soon(tmp_path, server):
    with pytest.raises(ValueError, match="60 of 60 shards could not be fetched"):
        fetch(tmp_path, server, 60, workers=2)
    assert len(server.requests) <= download.HOPELESS + 2


def test_what_is_no_parquet_is_not_taken(tmp_path, server):
    server.files = {"shard_00000.parquet": b"<html>busy</html>"}
    with pytest.raises(ValueError, match="not a readable parquet"):
        fetch(tmp_path, server, 1)
    assert not list((tmp_path / "base_data").iterdir())
    assert server.requests["shard_00000.parquet"] == download.ATTEMPTS


def test_the_current_recipe_always_takes_its_validation_shard(tmp_path, server, parquet):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in (0, 6542)}
    assert fetch(tmp_path, server, 1, recipe="current") == 2


def test_shards_are_not_fetched_beside_texts_of_ones_own_unless_asked(tmp_path, server, parquet):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(2)}
    text = tmp_path / "a.txt"
    text.write_text("A text of mine.")
    importer.add_documents(tmp_path, [text])
    with pytest.raises(ValueError, match=r"texts of your own \(shard_99999.*data download --mix"):
        fetch(tmp_path, server, 2)
    assert not server.requests
    assert fetch(tmp_path, server, 2, mix=True) == 2
    assert shards.find_shards(tmp_path).val.name == shards.VAL_NAME


def test_the_command_fetches_and_says_what_is_next(base_dir, server, parquet, capsys):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(2)}
    assert program.main(["download", "-n", "2", "--base-url", server.url]) == 0
    assert "2 shards in" in capsys.readouterr().out
    (base_dir / "base_data" / "books.parquet").write_bytes(parquet)
    with pytest.raises(SystemExit):
        program.main(["download", "-n", "2", "--base-url", server.url])
    assert program.main(["download", "-n", "2", "--base-url", server.url, "--mix"]) == 0


def test_a_file_put_there_by_hand_is_ones_own(tmp_path, server, parquet):
    (tmp_path / "base_data").mkdir()
    (tmp_path / "base_data" / "books.parquet").write_bytes(parquet)
    with pytest.raises(ValueError, match=r"your own \(books\.parquet\)"):
        fetch(tmp_path, server, 1)


def test_shards_of_two_recipes_are_not_mixed(tmp_path, server, parquet):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in (0, 1, 6542)}
    fetch(tmp_path, server, 2)
    manifest.identify(shards.list_shards(tmp_path / "base_data"))
    with pytest.raises(ValueError, match=r"of another recipe \(shard_00000"):
        fetch(tmp_path, server, 2, recipe="current")
    assert fetch(tmp_path, server, 2) == 2


def test_a_speedrun_trains_on_texts_of_ones_own_and_fetches_none(tmp_path, server, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv(download.BASE_VARIABLE, server.url)
    text = tmp_path / "a.txt"
    text.write_text("A text of mine.")
    importer.add_documents(tmp_path, [text])
    configs = {"base": BaseTrain(), "tokenizer": TokenizerTrain(num_shards=1)}
    speedrun._data(Speedrun(download=240), configs)
    assert not server.requests


def test_identity_words_and_bundle_come_from_the_named_server(tmp_path, server, monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("eval_bundle/core.yaml", "icl_tasks: []")
        bundle.writestr("../outside.txt", "must not leave the folder")
    server.files = {
        "identity_conversations.jsonl": b"[]\n",
        "words_alpha.txt": b"a\nb\n",
        "eval_bundle.zip": archive.getvalue(),
    }
    monkeypatch.setenv(download.BASE_VARIABLE, server.url)
    root = tmp_path / "base"
    assert download.identity(root).read_bytes() == b"[]\n"
    assert download.words(root).read_text() == "a\nb\n"
    folder = download.eval_bundle(root)
    assert [p.name for p in folder.iterdir()] == ["core.yaml"]
    assert not (tmp_path / "outside.txt").exists()
    assert sorted(p.name for p in root.iterdir()) == [
        "eval_bundle", "identity_conversations.jsonl", "words_alpha.txt",
    ]  # fmt: skip
    download.eval_bundle(root)
    assert server.requests["eval_bundle.zip"] == 1


def test_a_broken_bundle_leaves_nothing(tmp_path, server, monkeypatch):
    server.files = {"eval_bundle.zip": b"no zip"}
    monkeypatch.setenv(download.BASE_VARIABLE, server.url)
    with pytest.raises(ValueError, match="no zip archive"):
        download.eval_bundle(tmp_path / "base")
    assert not list((tmp_path / "base").iterdir())


def test_shards_arrive_beside_other_work_and_all_are_here_at_the_end(
    tmp_path, server, parquet, monkeypatch
):
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(4)}
    monkeypatch.setenv(download.BASE_VARIABLE, server.url)
    process = ahead.start(tmp_path, 4, "classic")
    ahead.finish(process, tmp_path, 4, "classic")
    assert len(shards.list_shards(tmp_path / "base_data")) == 4
    assert set(server.requests.values()) == {1}


def test_what_the_process_beside_could_not_fetch_is_fetched_or_told_at_the_end(
    tmp_path, server, parquet, monkeypatch
):
    server.files = {"shard_00000.parquet": parquet}
    monkeypatch.setenv(download.BASE_VARIABLE, server.url)
    process = ahead.start(tmp_path, 2, "classic")
    process.terminate()
    with pytest.raises(ValueError, match="shard_00001"):
        ahead.finish(process, tmp_path, 2, "classic")
    assert [p.name for p in shards.list_shards(tmp_path / "base_data")] == ["shard_00000.parquet"]


def test_a_speedrun_trains_its_tokenizer_on_the_first_shards_while_the_others_arrive(
    base_dir, server, parquet, monkeypatch
):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("eval_bundle/core.yaml", "icl_tasks: []")
    server.files = {f"shard_{i:05d}.parquet": parquet for i in range(5)} | {
        "identity_conversations.jsonl": b"[]\n",
        "words_alpha.txt": b"a\n",
        "eval_bundle.zip": archive.getvalue(),
    }
    monkeypatch.setenv(download.BASE_VARIABLE, server.url)
    server.trouble = {"shard_00004.parquet": ["500"]}  # comes late
    configs = {"base": BaseTrain(), "tokenizer": TokenizerTrain(num_shards=1)}
    rest = speedrun._data(Speedrun(download=5), configs)
    here = tokenizer.fingerprint(configs["tokenizer"], base_dir)
    assert here["shards"] == ["shard_00000.parquet"]
    rest()
    assert len(shards.find_shards(base_dir).train) == 4
    assert tokenizer.fingerprint(configs["tokenizer"], base_dir) == here
    assert (base_dir / "eval_bundle").is_dir() and (base_dir / "words_alpha.txt").exists()
    # Again: everything is here, so nothing is asked for.
    asked = sum(server.requests.values())
    speedrun._data(Speedrun(download=5), configs)()
    assert sum(server.requests.values()) == asked
