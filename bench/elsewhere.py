"""The demo's probes in another program, beside our own engine.

`python bench/elsewhere.py URL [--model NAME] [-i sft] [--tag TAG]` asks a server of OpenAI's API
(llama-server, ollama, vLLM, mlx_lm.server) every probe of the base directory's world, greedily, and
judges its replies as ours. Kinds that need the calculator stand apart: no other program runs it.
The last line is one JSON object; how the servers are started: docs/run-anywhere.md.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TIMEOUT = 120  # seconds a reply may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where the API is, for example http://127.0.0.1:8080/v1")
    parser.add_argument("--model", default="default", help="the model's name in that program")
    parser.add_argument("-i", "--source", default="sft")
    parser.add_argument("--tag", help="of our checkpoint")
    parser.add_argument("--clients", type=int, default=4, help="questions at once")
    args = parser.parse_args()
    from nanochat_jax.checkpoint import load_model
    from nanochat_jax.config import paths
    from nanochat_jax.evals import probes
    from nanochat_jax.serve.engine import Engine

    model, tokenizer, _ = load_model(args.source, args.tag)
    asked = probes.load_probes(paths.base_dir() / "world_data")
    if not asked:
        parser.error("no world_data/ in the base directory: the demo's speedrun writes it")
    asked = [probe for probe in asked if probe["tool"] is None]
    ours = probes.run_probes(Engine(model, tokenizer, slots=8), tokenizer, asked)
    own = {(kind, one.question): one for kind, score in ours.items() for one in score.exchanges}
    with ThreadPoolExecutor(args.clients) as pool:
        replies = list(pool.map(lambda p: reply(args.url, args.model, p["question"]), asked))
    right, same, number = Counter(), Counter(), Counter()
    for probe, text in zip(asked, replies, strict=True):
        kind = probe["kind"]
        number[kind] += 1
        right[kind] += probes.is_right(probe, text)
        same[kind] += text == own[kind, probe["question"]].reply
    table = {kind: {"n": n, "ours": ours[kind].correct, "theirs": right[kind], "same": same[kind]}
             for kind, n in number.items()}  # fmt: skip
    print(f"{'kind':20} {'of':>4} {'ours':>5} {'theirs':>6} {'same text':>9}")
    for kind, f in table.items():
        print(f"{kind:20} {f['n']:4} {f['ours']:5} {f['theirs']:6} {f['same']:9}")
    print(json.dumps({"url": args.url, "model": args.model, "kinds": table}))


def reply(url: str, model: str, question: str) -> str:
    """The text of a greedy answer, as that program sends it."""
    from nanochat_jax.evals.probes import MAX_TOKENS

    # Each program has defaults of its own, against loops: here the model alone is compared.
    plain = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "repetition_penalty": 1.0}
    messages = [{"role": "user", "content": question}]
    body = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, **plain}
    request = urllib.request.Request(
        f"{url.rstrip('/')}/chat/completions", json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.load(answer)["choices"][0]["message"]["content"] or ""
    except urllib.error.HTTPError as error:
        sys.exit(f"{url}: {error.code} {error.read().decode(errors='replace')[:500]}")


if __name__ == "__main__":
    main()
