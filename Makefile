# Two commands: `make speedrun` and `make test`. Each sets itself up first.

SHELL := /bin/bash
VENV := .venv
ALL := .venv-all
GPU := .venv-gpu
PY := $(VENV)/bin/python
SOURCES := pyproject.toml rustbpe/Cargo.toml $(wildcard rustbpe/src/*.rs)
ACCELERATOR := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo cuda)
comma := ,
EXTRAS := dev$(if $(ACCELERATOR),$(comma)$(ACCELERATOR))
JOBS ?= 2# test processes of `make test`; each takes up to 3 GB
UV := $(shell command -v uv 2>/dev/null)
# The newest interpreter at hand that is 3.11 or later; PYTHON=... on the command line wins.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { command -v $$p; break; }; done)

.PHONY: speedrun test test-all test-gpu test-llama test-original chat web lint format bench setup clean

speedrun: $(VENV)/.ready ## raw text to a chat model, then the report
	$(PY) -m scripts.speedrun $(ARGS)

test: $(VENV)/.ready ## everything that is quick and needs no torch
	$(PY) -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-all: test $(ALL)/.ready $(ALL)/nginx ## also the slow laws, torch and transformers, a real browser
	NANOCHAT_TEST_ALL=1 $(ALL)/bin/python -m pytest -q -m slow -n $(JOBS) --dist loadfile $(ARGS)

test-gpu: $(VENV)/.ready $(GPU)/.ready ## the shipped configs compiled for their GPUs by XLA, on a machine without one
	NANOCHAT_TEST_GPU=1 JAX_PLATFORMS=cpu $(GPU)/bin/python -m pytest -q -n $(JOBS) --dist worksteal tests/gpu $(ARGS)

test-llama: $(ALL)/.ready ## our GGUF files in llama.cpp, which this compiles (some ten minutes, once)
	@$(call with_pip,$(ALL)); install -e '.[llama]'
	NANOCHAT_TEST_LLAMA=1 $(ALL)/bin/python -m pytest -q tests/interop/test_gguf.py $(ARGS)

test-original: $(ALL)/.ready ## ORIGINAL=CLONE of karpathy/nanochat: it loads and trains what we export
	NANOCHAT_ORIGINAL="$(abspath $(ORIGINAL))" $(ALL)/bin/python -m pytest -q -s tests/interop/original.py $(ARGS)

chat: $(VENV)/.ready ## talk in the terminal
	$(PY) -m scripts.chat_cli $(ARGS)

web: $(VENV)/.ready ## talk in the browser
	$(PY) -m scripts.chat_web $(ARGS)

lint: $(VENV)/.ready ## the same checks as pre-commit and CI
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.ready ## every measured claim again
	for file in bench/*.py; do $(PY) $$file || exit 1; done

setup: $(VENV)/.ready

clean: ## environments, build products, caches (not what was trained)
	rm -rf $(VENV) $(ALL) $(GPU) rustbpe/target .cache .pytest_cache .ruff_cache nanochat_jax/_rustbpe*.so

$(VENV)/.ready: $(SOURCES)
	$(call environment,$(VENV),$(EXTRAS))

# What the slow tests want besides: torch and transformers, which no other environment needs to
# carry (5 GB), lm-eval and schemathesis to ask the server, a browser to look at the page with.
$(ALL)/.ready: $(SOURCES)
	$(call environment,$(ALL),dev$(comma)full)
	@command -v chromium >/dev/null 2>&1 || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1 \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null 2>&1; } \
	  || echo "no Chromium here: the page's tests will be skipped (install the package chromium)"

# Half a megabyte, unpacked and not installed: an installed nginx begins to serve at once.
$(ALL)/nginx: | $(ALL)/.ready
	@command -v nginx >/dev/null 2>&1 || { rm -rf $@.part && mkdir $@.part && cd $@.part \
	  && { apt-get download -qq nginx || { apt-get update -qq && apt-get download -qq nginx; }; } >/dev/null 2>&1 \
	  && dpkg -x nginx_*.deb . && mv ../$(@F).part ../$(@F); } \
	  || echo "no nginx here: the test of two servers will be skipped (install the package nginx)"

# JAX with its compiler for NVIDIA GPUs, of one version. The rest of jax[cuda12], 3 GB, is what a GPU
# runs; cuDNN is asked what it can do before attention is lowered to it, and ptxas (of nvcc) for
# registers. Of this project nothing is installed: rustbpe lies where `make setup` compiled it.
GPU_PACKAGES := jax|flax|optax|orbax-checkpoint|grain|numpy|tyro|pyarrow|tqdm|pytest|pytest-timeout|pytest-xdist
$(GPU)/.ready: pyproject.toml
	@echo "setting up $(GPU): JAX with its compiler for GPUs (2.6 GB)"
	@$(call with_pip,$(GPU)); \
	install $$(sed -nE 's/^    "(($(GPU_PACKAGES))[<>=][^"]*)",.*/\1/p' pyproject.toml) \
	&& jax=$$($$py -c 'import importlib.metadata as m; print(m.version("jax"))') \
	&& install --no-deps jax-cuda12-plugin==$$jax jax-cuda12-pjrt==$$jax nvidia-cudnn-cu12 nvidia-cuda-nvcc-cu12
	@touch $@

# $(1): folder, made if missing. Gives `$$py` and `install`: by uv, which resolves in seconds what
# takes pip minutes, and is brought into the environment where it is not at hand; else by pip.
define with_pip
test -n "$(PYTHON)$(UV)" || { echo "nanochat-jax needs Python 3.11 or newer; found none: install one, or say PYTHON=/path/to/python"; exit 1; }; \
	uv="$(UV)"; py=$(1)/bin/python; \
	if [ -n "$$uv" ]; then test -x $$py || "$$uv" venv -q --seed $(if $(PYTHON),--python $(PYTHON)) $(1); \
	else \
	  test -x $$py || $(PYTHON) -m venv $(1); \
	  $$py -m pip install -q --disable-pip-version-check 'uv>=0.5' && uv=$(1)/bin/uv; \
	fi; \
	install() { \
	  if [ -n "$$uv" ] && "$$uv" pip install -q --python $$py "$$@"; then :; \
	  else echo "without uv: pip takes some minutes more"; $$py -m pip install -q --disable-pip-version-check "$$@"; fi; \
	}
endef

# $(1): folder, $(2): extras. Says what it does: the first time takes a minute or two.
define environment
	@command -v cargo >/dev/null 2>&1 || echo "no Rust toolchain found: the build will try to fetch one; if that fails install it from https://rustup.rs"
	@echo "setting up $(1): packages [$(2)]$(if $(findstring cuda,$(2)), with the CUDA build of JAX), then compiling rustbpe (one or two minutes the first time)"
	@$(call with_pip,$(1)); install -e '.[$(2)]'
	@touch $(1)/.ready
endef
