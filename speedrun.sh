#!/usr/bin/env bash
# The original's command. Here it is `make speedrun`: it sets itself up, goes on where it was stopped
# and skips what is done.
echo "speedrun.sh is now: make speedrun (inside of .venv: python -m scripts.speedrun)" >&2
exec make -C "$(dirname "$0")" speedrun ARGS="$*"
