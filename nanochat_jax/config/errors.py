"""What a person reads of a program: log lines, and one message for what a person can fix."""

import contextlib
import datetime
import difflib
import errno
import logging
import pathlib
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence

from nanochat_jax.config import environment

log = logging.getLogger(__name__)

# What failed on the way and did not end a run: beside its checkpoints, or beside the report.
FAILURES = "failures.log"


def start_logging() -> None:
    """Messages as plain lines; those of libraries only when something is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("absl", "orbax", "jax", "grain", "httpx", "httpx2", "gguf"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextlib.contextmanager
def friendly_errors() -> Iterator[None]:
    """For programs: what a person can fix is printed as one message (exit 2), not a traceback.

    That is what our own code raises on purpose; an error from inside a library keeps its traceback.
    Ctrl-C needs no words at all.
    """
    # `environment.check` left it to the system.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except ValueError as error:
        if not _is_ours(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        # One without a number is our own, and says what to do; the system's all have one.
        ours = error.errno is None
        if ours and not _is_ours(error):
            raise
        print(f"error: {error if ours else _os_message(error)}", file=sys.stderr)
        raise SystemExit(2 if ours else 1) from None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nanochat_jax"):
            raise
        missing = f"{error.name} is not installed for this Python ({sys.executable})"
        print(f"error: {missing}; type: {environment.remedy()}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def told(what: str, error: Exception, file: pathlib.Path) -> None:
    """For a failure that does not end the program: one line of it, the traceback goes to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {what}\n")
        out.writelines(traceback.format_exception(error))
    first = str(error).partition("\n")[0][:300]
    log.error("%s failed and is left out: %s: %s (traceback: %s; --strict ends the run there)",
              what, type(error).__name__, first, file)  # fmt: skip


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, else the list of what is known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _os_message(error: OSError) -> str:
    """The system's message and the file's name; for a full disk also what to do about it."""
    message = ": ".join(filter(None, (error.strerror or str(error), str(error.filename or ""))))
    # Some of our own errors are OSErrors that say "disk full" with a remedy already.
    if error.errno != errno.ENOSPC or "disk full" in message:
        return message
    return (
        f"{message}; the disk is full: make room and type the same command again, it goes on after "
        "what was finished; or name a folder on another disk in $NANOCHAT_BASE_DIR"
    )


def _is_ours(error: BaseException) -> bool:
    """Whether the error was raised in this package or its programs."""
    # By the innermost frame: a ValueError out of numpy is a bug of ours, and its place matters.
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised, package = frame.f_code.co_filename, pathlib.Path(__file__).resolve().parents[1]
    homes = (package, package.parent / "scripts")
    return any(pathlib.Path(raised).is_relative_to(home) for home in homes)
