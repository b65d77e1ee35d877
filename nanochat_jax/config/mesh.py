"""The one reader of `--mesh`: how many devices stand on which axis."""

import math

# `data` splits the rows of a batch and the optimizer's state, `fsdp` the parameters too.
AXES = ("data", "fsdp")


def parse_mesh(text: str) -> dict[str, int] | None:
    """Axis name -> devices for `8` or `data=4,fsdp=2`, both axes always; None for an empty text.

    Raises:
        ValueError: a text of another form.
    """
    if not text.strip():
        return None
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.rpartition("=")
        name = name.strip() or AXES[0]
        if name not in AXES or name in axes or not size.strip().isdecimal() or int(size) < 1:
            raise ValueError(
                f"mesh is {text!r}; expected a number of devices such as 8, "
                f"or sizes of the axes {' and '.join(AXES)} such as data=4,fsdp=2"
            )
        axes[name] = int(size)
    return {name: axes.get(name, 1) for name in AXES}


def mesh_size(text: str) -> int | None:
    """How many devices a `--mesh` text names (None when it is empty); ValueError as above."""
    axes = parse_mesh(text)
    return math.prod(axes.values()) if axes else None
