"""From flags to a service: what the person typed is what the server does."""

import pytest

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.devices import cpu_count
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.load import Loaded
from nanochat_jax.serve.server import launch
from nanochat_jax.serve.server.launch import SMALL, mesh_text, new_service, with_mesh
from tests.serve.read_weights import ReadWeights
from tests.serve.world import BYTES, spoken, talking_model


@pytest.fixture(scope="module")
def service_of():
    """Makes the service of flags, over one engine."""
    model = talking_model(spoken("hi"), sequence_len=64)
    engine = Engine(model, BYTES, slots=1)
    return lambda **flags: new_service(
        ChatWeb(**flags), Loaded(model, BYTES, "cpu", "nanochat-sft-d1", 1), engine
    )


def test_requests_without_a_seed_draw_theirs_from_the_servers(service_of):
    draw = lambda **flags: [service.seed(None) for service in [service_of(**flags)] * 5]
    assert draw(seed=7) == draw(seed=7)
    assert draw(seed=7) != draw(seed=8)
    assert len(set(draw(seed=7))) == 5
    assert draw() != draw()


def test_a_seed_that_a_request_names_is_its_own(service_of):
    assert [service_of(seed=seed).seed(3) for seed in (7, 8)] == [3, 3]


def test_flags_are_the_defaults_of_requests_that_say_nothing(service_of):
    flags = {"temperature": 0.1, "top_k": 7, "top_p": 0.9, "max_tokens": 11, "seed": 0}
    service = service_of(**flags, queue=3, model_name="mine")
    assert vars(service.cfg).items() >= flags.items()
    assert (service.scheduler.queue_limit, service.model_id) == (3, "mine")
    assert service_of().model_id == "nanochat-sft-d1"


def test_n_names_the_mesh_of_the_server():
    assert with_mesh(ChatWeb(num_gpus=8)).mesh == "8"
    assert with_mesh(ChatWeb(num_gpus=1)).mesh == "1"
    assert with_mesh(ChatWeb()).mesh == ""
    assert with_mesh(ChatWeb(mesh="data=2,fsdp=2")).mesh == "data=2,fsdp=2"
    for wrong in (ChatWeb(num_gpus=-1), ChatWeb(num_gpus=2, mesh="4")):
        with pytest.raises(ValueError, match="-n 8 is --mesh 8"):
            with_mesh(wrong)


@pytest.mark.parametrize(
    "host, url",
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_ready_names_an_address_that_a_browser_takes(host, url):
    assert launch.address(host, 8000) == url


def test_a_server_holds_the_weights_in_8_bits_alone(monkeypatch):
    read = ReadWeights(monkeypatch, launch)
    monkeypatch.setattr(launch, "run", lambda service, sock: sock.close() or read.alive())
    assert launch.serve(ChatWeb(port=0, slots=1, mesh="1", int8=True)) == 0


def test_without_a_mesh_a_small_model_on_a_cpu_is_served_by_every_core():
    cores = cpu_count()
    assert mesh_text("cpu", SMALL, 16 * cores) == str(cores)
    assert mesh_text("cpu", SMALL, 1) == mesh_text("cpu", SMALL + 1, 16 * cores) == "1"
    assert mesh_text("gpu", SMALL, 32) == "1"
