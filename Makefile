# Two commands: `make speedrun` and `make test`. Each sets itself up first.

SHELL := /bin/bash
VENV := .venv
ALL := .venv-all
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

.PHONY: speedrun test test-all test-original chat web lint format bench setup clean

speedrun: $(VENV)/.ready ## raw text to a chat model, then the report
	$(PY) -m scripts.speedrun $(ARGS)

test: $(VENV)/.ready ## everything that is quick and needs no torch
	$(PY) -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-all: test $(ALL)/.ready ## also the slow laws, torch and transformers, a real browser
	NANOCHAT_TEST_ALL=1 $(ALL)/bin/python -m pytest -q -m slow -n $(JOBS) --dist loadfile $(ARGS)

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
	rm -rf $(VENV) $(ALL) rustbpe/target .cache .pytest_cache .ruff_cache nanochat_jax/_rustbpe*.so

$(VENV)/.ready: $(SOURCES)
	$(call environment,$(VENV),$(EXTRAS))

# What the slow tests want besides: torch and transformers, which no other environment needs to
# carry (5 GB), lm-eval and schemathesis to ask the server, a browser to look at the page with.
$(ALL)/.ready: $(SOURCES)
	$(call environment,$(ALL),dev$(comma)full)
	@command -v chromium >/dev/null 2>&1 || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1 \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null 2>&1; } \
	  || echo "no Chromium here: the page's tests will be skipped (install the package chromium)"

# $(1): folder, $(2): extras. Says what it does: the first time takes a minute or two. Where uv is
# not at hand it is brought into the environment: it resolves in seconds what takes pip minutes.
define environment
	@test -n "$(PYTHON)$(UV)" || { echo "nanochat-jax needs Python 3.11 or newer; found none: install one, or say PYTHON=/path/to/python"; exit 1; }
	@command -v cargo >/dev/null 2>&1 || echo "no Rust toolchain found: the build will try to fetch one; if that fails install it from https://rustup.rs"
	@echo "setting up $(1): packages [$(2)]$(if $(findstring cuda,$(2)), with the CUDA build of JAX), then compiling rustbpe (one or two minutes the first time)"
	@uv="$(UV)"; py=$(1)/bin/python; \
	if [ -n "$$uv" ]; then test -x $$py || "$$uv" venv -q $(if $(PYTHON),--python $(PYTHON)) $(1); \
	else \
	  test -x $$py || $(PYTHON) -m venv $(1); \
	  $$py -m pip install -q --disable-pip-version-check 'uv>=0.5' && uv=$(1)/bin/uv; \
	fi; \
	if [ -n "$$uv" ] && "$$uv" pip install -q --python $$py -e '.[$(2)]'; then :; \
	else echo "without uv: pip takes some minutes more"; $$py -m pip install -q --disable-pip-version-check -e '.[$(2)]'; fi
	@touch $(1)/.ready
endef
