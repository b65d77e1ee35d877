"""Models to and from other programs: `python -m scripts.convert import|export|compare`."""

import logging
import os
import sys

import tyro

from nanochat_jax.config.convert import Compare, Export, Import
from nanochat_jax.config.load import check_flags, friendly_errors

COMMANDS = {"import": Import, "export": Export, "compare": Compare}


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with friendly_errors():
        if argv and argv[0] in COMMANDS:
            check_flags(argv[1:], COMMANDS[argv[0]])
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="scripts.convert", description=__doc__, args=argv
        )
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # moving files needs no accelerator
        return run(command)
    return 0


def run(command: Import | Export | Compare) -> int:
    from nanochat_jax import interop

    if isinstance(command, Import):
        path, lines = interop.import_model(command)
        source = path.parent.parent.name.split("_")[0].removeprefix("chat")
        talk = f"python -m scripts.chat_cli -i {source} -g {path.parent.name}"
        print(*lines, f"imported into {path}", f"next: {talk}", sep="\n")
    elif isinstance(command, Export):
        folder, lines = interop.export_model(command)
        print(*lines, f"exported to {folder}", sep="\n")
    else:
        print(*interop.compare(command), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
