"""What went wrong at the engine, as typed errors: no answer, a refusal, and what a refusal means for a start.

The engine tells most reasons in words only; the words that matter are in one table here. What no line of it knows is
temporary, so that a task is tried again rather than given up for a message that a later engine words otherwise.
"""

from __future__ import annotations

from typing import Any

from cloudless.errors import ExecutorAway, ExecutorError, ImageMissing, Permanent, PortTaken, Temporary

COMMAND_EXIT_CODES = (126, 127)
"""What the engine gives a container whose command could not be run: not executable, not found."""


class Refused(Temporary):
    """The engine answered with an error. `status` is its HTTP status."""

    code = "engine-refused"

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Unanswered(ExecutorAway):
    """No answer came: the engine is absent, hangs, or went away meanwhile. What was asked may still happen."""

    code = "engine-unanswered"


# words in the engine's message  →  error
_START: tuple[tuple[tuple[str, ...], type[ExecutorError]], ...] = (
    (("port is already allocated", "address already in use", "ports are not available"), PortTaken),
    (("no such image",), Temporary),  # removed between the look and the start: the next try fetches it
)
_PULL: tuple[tuple[tuple[str, ...], type[ExecutorError]], ...] = (
    (("toomanyrequests", "too many requests", "rate limit"), Temporary),
    (
        (
            "manifest unknown",
            ": not found",
            "not found: ",
            "does not exist",
            "pull access denied",
            "access to the resource is denied",
            "unauthorized",
            "no basic auth credentials",
            "no matching manifest",
            "invalid reference format",
            "invalid repository name",
        ),
        ImageMissing,
    ),
)


def explain_start(refused: Refused, exit_code: int, command: str) -> ExecutorError:
    """Return why a container could not be created or started. `exit_code` is what the engine gave it, 0 for none."""
    found = _find(_START, refused.message)
    if found is not None:
        return found(refused.message)
    if exit_code in COMMAND_EXIT_CODES:
        what = "not executable" if exit_code == 126 else "command not found"
        return Permanent(f"{what}: {command or 'the one of the image'}", hint=refused.message)
    # What the engine finds wrong with the request itself does not get better.
    return Permanent(refused.message) if 400 <= refused.status < 500 else Temporary(refused.message)


def explain_pull(image: str, message: str) -> ExecutorError:
    """Return why an image could not be fetched: it is not there (or not for us), or it cannot be reached now."""
    found = _find(_PULL, message) or Temporary
    if found is ImageMissing:
        return ImageMissing(
            f"image {image} cannot be had: {message}",
            hint="is its name right? A private one needs `docker login` as the user that the agent runs as",
        )
    return found(f"image {image} cannot be fetched now: {message}")


def _find(table: tuple[tuple[tuple[str, ...], type[ExecutorError]], ...], message: str) -> type[ExecutorError] | None:
    lower = message.lower()
    return next((error for words, error in table if any(word in lower for word in words)), None)


def translate(error: BaseException, host: str) -> BaseException:
    """Return a library's error as ours; one that is not the library's is returned as it is."""
    if isinstance(error, ImportError):
        return Unanswered(f"the library that talks to Docker cannot be loaded: {error}")
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    chain: list[Any] = [error]
    while chain[-1].__cause__ is not None and len(chain) < 8:
        chain.append(chain[-1].__cause__)
    for one in chain:
        if isinstance(one, docker.errors.APIError):
            return Refused(one.status_code or 500, str(one.explanation or one))
    if any(isinstance(one, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError) for one in chain):
        return Unanswered(f"the Docker engine at {host} does not answer")
    unreachable = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
    if any(isinstance(one, unreachable) for one in chain):
        return Unanswered(f"the Docker engine at {host} cannot be reached: {_root_words(chain[-1])}")
    if isinstance(error, docker.errors.DockerException):
        return Refused(500, str(error))
    return error


def _root_words(error: BaseException) -> str:
    """Return what the system said, without the wrappings of three libraries."""
    seen = 0
    while seen < 8 and (inner := error.__context__ or next((a for a in error.args if isinstance(a, Exception)), None)):
        error, seen = inner, seen + 1
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
