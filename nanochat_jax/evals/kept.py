"""Engines that answer for one model after another, while training goes on between two."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from nanochat_jax.models.gpt import Model


class Engines(Protocol):
    """One engine, or a pool of them."""

    def set_params(self, params: Any) -> None: ...

    def release(self) -> None: ...


E = TypeVar("E", bound=Engines)


class Kept(Generic[E]):
    """What `make` makes of a model, for one model after another: `with kept(model) as engines`.

    Engines are made and compiled for the first model and kept; between two they hold no device
    memory, which training wants back. `make` may give None, where there is nothing to answer.
    """

    def __init__(self, make: Callable[[Model], E | None]):
        self._make, self._engines = make, None

    @contextlib.contextmanager
    def __call__(self, model: Model) -> Iterator[E | None]:
        # Out of our hands until all went well: after an error requests may be left in the slots,
        # and the next model gets engines of its own.
        engines, self._engines = self._engines, None
        if engines is None:
            engines = self._make(model)
        else:
            engines.set_params(model.params)
        try:
            yield engines
        finally:
            if engines is not None:
                engines.release()
        self._engines = engines
