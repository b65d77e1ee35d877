"""The hub, played by a server of our own: rows are fetched once, kept whole, and read offline."""

import hashlib
import http.server
import io
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.parse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPO, COMMIT = "openai/gsm8k", "a" * 40
FOLDER = "main/train"
CLIENT = """
import sys
from pathlib import Path
from nanochat_jax import tasks
try:
    task = tasks.build(sys.argv[2:], Path(sys.argv[1]), "train")
    print(len(task), sorted(task[i]["messages"][0]["content"] for i in range(len(task))))
except FileNotFoundError as error:
    print("FileNotFoundError:", error)
"""


def parquet(start: int, count: int) -> bytes:
    rows = [{"question": f"q{start + i}", "answer": f"#### {i}"} for i in range(count)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


class Hub(http.server.ThreadingHTTPServer):
    """One data set in two parquet files; `broken` files are cut short."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {
            f"{FOLDER}/0000.parquet": parquet(0, 3),
            f"{FOLDER}/0001.parquet": parquet(3, 2),
        }
        self.files["main/test/0000.parquet"] = parquet(9, 1)
        self.broken: set[str] = set()
        self.fetched: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
        info, tree, file = (
            f"api/datasets/{REPO}/revision/refs/convert/parquet",
            f"api/datasets/{REPO}/tree/{COMMIT}",
            f"datasets/{REPO}/resolve/{COMMIT}/",
        )
        if path == info:
            names = [{"rfilename": name} for name in self.server.files]
            self.reply(json.dumps({"id": REPO, "sha": COMMIT, "siblings": names}).encode())
        elif path == tree:
            self.reply(json.dumps([entry(*item) for item in self.server.files.items()]).encode())
        elif path.startswith(file) and path.removeprefix(file) in self.server.files:
            self.send_file(path.removeprefix(file))
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def send_file(self, name):
        body = self.server.files[name]
        if self.command == "GET":
            self.server.fetched.append(name)
        cut = body[: len(body) // 2] if name in self.server.broken else body
        self.reply(cut, len(body), {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(body)}"'})

    def reply(self, body, length=None, headers=()):
        self.send_response(200)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def digest(body: bytes) -> str:
    """The name of a small file's content, as git gives it."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def entry(name: str, body: bytes) -> dict:
    return {"type": "file", "path": name, "size": len(body), "oid": digest(body)}


@pytest.fixture
def hub():
    made = Hub()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def build(hub, tmp_path):
    """Builds tasks in a process of its own: the package reads its variables when imported."""
    own = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}

    def run(*names, **more):
        env = {**kept, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", **more}
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, str(tmp_path), *names],
            env=env, cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


ALL = "5 ['q0', 'q1', 'q2', 'q3', 'q4']"


def test_rows_are_fetched_once_and_then_read_without_the_hub(hub, build):
    assert build("GSM8K") == ALL
    assert sorted(hub.fetched) == sorted(n for n in hub.files if n.startswith(FOLDER))
    assert build("GSM8K") == ALL and len(hub.fetched) == 2
    hub.shutdown()
    assert build("GSM8K", HF_HUB_OFFLINE="1") == ALL


def test_offline_a_missing_data_set_is_an_error_that_names_the_way_out(build):
    message = build("GSM8K", HF_HUB_OFFLINE="1")
    assert message.startswith("FileNotFoundError: could not have openai/gsm8k, main, train")
    assert "--task-data DIR" in message


def test_a_data_set_that_the_hub_lacks_is_named(build):
    assert "could not have openai/openai_humaneval" in build("HumanEval")


@pytest.mark.slow
def test_a_download_that_breaks_off_leaves_no_part_of_the_rows(hub, build):
    hub.broken = {f"{FOLDER}/0001.parquet"}
    assert build("GSM8K").startswith("FileNotFoundError")
    assert build("GSM8K", HF_HUB_OFFLINE="1").startswith("FileNotFoundError")
    hub.broken = set()
    assert build("GSM8K") == ALL
