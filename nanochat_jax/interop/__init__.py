"""Models to and from other programs: what `scripts.convert` runs.

The files are read and written in `checkpoint/`; here is what needs the rest of the house as well:
which settings a run had, what its optimizer's numbers were, and which candidate a text prefers.
"""

from nanochat_jax.interop.exports import export_model as export_model
from nanochat_jax.interop.imports import import_model as import_model
from nanochat_jax.interop.sides import compare as compare
