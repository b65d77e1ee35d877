"""Folders of ours become repositories on the Hugging Face hub, by `huggingface_hub`.

Its own environment holds: `HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. A repository
gets all files in one commit or none.
"""

import contextlib
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

Kind = Literal["model", "space"]
LOGIN = (
    "type `hf auth login`, or set HF_TOKEN, with a token that may write (Settings, Access Tokens)"
)
ADVICE = {
    401: f"the token is not valid; {LOGIN}",
    402: "the hub asks for a subscription for a Space of this kind; leave --space out",
    403: f"the token may not write there: another --repo of yours, or {LOGIN}",
    413: "it is too large for this account; push fewer formats (--format) or a smaller --quant",
}
AGAIN = "check the network, and type the same command again"
# The hub's own, in every repository.
THEIRS = (".gitattributes",)


class Parcel(NamedTuple):
    """A folder and where it goes."""

    folder: pathlib.Path
    repo: str
    kind: Kind

    @property
    def files(self) -> list[str]:
        """The paths in it, sorted."""
        found = (p.relative_to(self.folder) for p in self.folder.rglob("*") if p.is_file())
        return sorted(path.as_posix() for path in found)


def check_repo(repo: str) -> None:
    """Raises ValueError for what is no `USER/NAME` of the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with contextlib.suppress(HFValidationError):
        validate_repo_id(repo)
        if "/" in repo:
            return
    raise ValueError(f"--repo is {repo!r}; expected USER/NAME, such as ada/d20: letters, digits, "
                     "single - _ and . between them")  # fmt: skip


def send(parcels: Sequence[Parcel], message: str, *, private: bool) -> list[str]:
    """Sends every folder; returns a line with the address of each commit.

    Everything is asked before anything is sent. What had arrived when a push broke off is not sent
    again by the next one, and neither are files that are there unchanged.

    Raises:
        ValueError: no token, a repository with other files or seen by all, a refusal of the hub.
        ConnectionError: the hub was not reached, or not to the end.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    _know_me(api)
    for parcel in parcels:
        _refuse_another(_there(api, parcel), parcel, private)
    return [_send(api, parcel, message, private) for parcel in parcels]


def _know_me(api: Any) -> None:
    """Raises ValueError without a token that the hub knows."""
    from huggingface_hub import get_token

    if not get_token():
        raise ValueError(f"no token for the Hugging Face hub; {LOGIN}")
    with _one_line("the token"):
        api.whoami()


def _there(api: Any, parcel: Parcel) -> Any:
    """What the hub says of a repository; None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with _one_line(parcel.repo), contextlib.suppress(RepositoryNotFoundError):
        return api.repo_info(parcel.repo, repo_type=parcel.kind)
    return None


def _refuse_another(info: Any, parcel: Parcel, private: bool) -> None:
    """Raises ValueError where a repository is there and is of something else, or seen by all."""
    there = {file.rfilename for file in info.siblings or ()} if info else set()
    kind = "" if parcel.kind == "model" else f" --type {parcel.kind}"
    if others := sorted(there - {*parcel.files, *THEIRS}):
        few = shlex.join(others[:3]) + " ..." * (len(others) > 3)
        raise ValueError(
            f"the {parcel.kind} {parcel.repo} has files that are not of this push; name another "
            f"--repo, or take them away: `hf repos delete-files {parcel.repo}{kind} {few}`"
        )
    if info and private and not info.private:
        raise ValueError(
            f"{parcel.repo} is there and public, which a push does not change; type `hf repos "
            f"settings {parcel.repo} --private{kind}` first, or leave --private out"
        )


def _send(api: Any, parcel: Parcel, message: str, private: bool) -> str:
    where = dict(repo_id=parcel.repo, repo_type=parcel.kind)
    sdk = "docker" if parcel.kind == "space" else None
    with _one_line(parcel.repo):
        # None, not False: an organization may make its new ones private by itself.
        api.create_repo(**where, private=private or None, exist_ok=True, space_sdk=sdk)
        try:
            done = api.upload_folder(**where, folder_path=parcel.folder, commit_message=message)
        except Exception:
            print(file=sys.stderr)  # a progress bar that broke off leaves its line open
            raise
    return f"sent: {done.commit_url}"


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """What the hub or its client raises becomes one line that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise ValueError("HF_HUB_OFFLINE is set; unset it, and type the same again") from None
    except Exception as error:  # whatever its HTTP client of the day raises
        # A file that failed is told as an error of its own, with the reason behind it.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            code = cause.response.status_code
            said = _first_line(cause.server_message or str(cause))
            advice = ADVICE.get(code, AGAIN)
            raise ValueError(f"the hub refused {what} ({code}: {said}); {advice}") from error
        if isinstance(cause, ValueError):
            raise ValueError(f"the hub refused {what}: {_all_in_one(cause)}") from error
        raise ConnectionError(
            f"{constants.ENDPOINT} was not reached: {_first_line(str(cause))}; {AGAIN}"
        ) from error


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no reason given")


def _all_in_one(error: Exception) -> str:
    return " ".join(str(error).split())
