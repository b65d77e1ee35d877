"""The flags of `scripts.checkpoints list|restore|prune`."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True)
class ListRuns:
    """Show every run with its steps, and those that new runs of their name moved aside."""


@dataclasses.dataclass(frozen=True)
class Restore:
    """Bring back a run that was moved aside; the one in its place is moved aside in turn."""

    name: tyro.conf.Positional[str]  # as `list` shows it, such as base/d4-1


@dataclasses.dataclass(frozen=True)
class Prune:
    """Show which runs that were moved aside the rule lets go; --yes removes them.

    Of each run the newest three stay, whatever they are. Older ones that never came to their end
    go by themselves when another is moved aside; finished ones go with --finished alone.
    """

    finished: bool = False  # finished ones beyond the newest three too
    yes: bool = False  # remove what is shown


COMMANDS: dict[str, type] = {"list": ListRuns, "restore": Restore, "prune": Prune}
