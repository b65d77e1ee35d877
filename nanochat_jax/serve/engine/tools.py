"""The tools a model may call, and how a call is answered.

To add one: write a file with its function beside `calculator.py`, and name the function in `TOOLS`.
Nothing else has to know. A call is a `python` part whatever the tool, and its result a
`python_output` part: nanochat's nine special tokens are fixed (see `tokenizer/chat_format.py`), so
a tool cannot bring markers of its own. Tools tell their calls by the text, as Python tells
functions by their names.
"""

from collections.abc import Callable

from nanochat_jax.serve.engine.calculator import use_calculator

Tool = Callable[[str], object | None]
"""The text of a call -> its result, or None where the call is none of this tool's, or has no value.

It runs in the loop that drives the engine: all rows wait for it, so it must be quick, and it must
not raise. The text comes from a model and is not to be trusted.
"""

# Tried in this order. GSM8K and SpellingBee teach a model the calculator alone: a second tool needs
# conversations that call it.
TOOLS: tuple[Tool, ...] = (use_calculator,)


def run_tool(call: str) -> str | None:
    """The result of the first tool that has one, as text; None: the reply goes on without."""
    results = (tool(call) for tool in TOOLS)
    found = next((result for result in results if result is not None), None)
    return None if found is None else str(found)
