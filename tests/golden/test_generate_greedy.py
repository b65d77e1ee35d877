"""Greedy replies through the Engine are the original's tokens, with its log-probabilities."""

import functools

import numpy as np
import pytest

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.requests import Request
from nanochat_jax.tokenizer import Tokenizer
from tests.golden.conftest import TOL, files, load_json, load_npz

FILES = files("generate_*.npz")
