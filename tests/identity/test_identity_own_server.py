"""Identity conversations written by our own server: taken when right, refused when not."""

import json

import pytest

from nanochat_jax.identity import make
from nanochat_jax.identity.endpoint import Endpoint
from nanochat_jax.identity.facts import Identity, parse
from nanochat_jax.tasks.conversation import read_conversations
from tests.serve.conftest import RunningServer, new_service
from tests.serve.world import BYTES, random_model, talking_model

NEMO = Identity("Nemo", parse(["creator: Ada"]))
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I am Nemo."}]


def endpoint(server: RunningServer, **more) -> Endpoint:
    return Endpoint(server.url + "/v1", pause_s=0.01, **more)


@pytest.mark.slow
def test_a_model_that_writes_conversations_fills_the_file(tmp_path):
    path = tmp_path / "out.jsonl"
    reply = BYTES.encode(json.dumps({"messages": TALK}))
    service = new_service(talking_model(reply, sequence_len=1536), slots=1)
    with RunningServer(service) as server:
        made = make.from_endpoint(path, NEMO, 1, endpoint(server.wait_ready(), max_tokens=300))
    assert made.new == 1 and list(read_conversations(path)) == [TALK]


@pytest.mark.slow
def test_a_random_model_is_asked_again_and_then_given_up_with_the_count(tmp_path):
    path = tmp_path / "out.jsonl"
    with RunningServer(new_service(random_model(sequence_len=1536), slots=2)) as server:
        writer = endpoint(server.wait_ready(), max_tokens=8)
        with pytest.raises(ValueError, match=r"nanochat-test gave nothing new .* larger model"):
            make.from_endpoint(path, NEMO, 5, writer, workers=2)
    assert not path.exists()
