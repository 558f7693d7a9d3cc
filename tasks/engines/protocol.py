"""What a generation engine is to the describe stage: requests in, answers out, in any order, until it dies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from tasks.prompt_files import Sampling


class EngineDied(Exception):
    """The engine is gone, or hangs; what it had not answered is lost to it. `kind` is a word for the failed rows."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class Request:
    """One question: rendered turns, the picture where the view has one, and how to sample.

    `picture_digest` stands for the picture's content within a run; an engine that is given none hashes the pixels.
    """

    key: str
    system: str | None
    user: str
    picture: Image.Image | None
    sampling: Sampling
    json_schema: Mapping[str, object] | None = None
    picture_digest: str | None = None


@dataclass(frozen=True)
class Completion:
    """What came back for a request: a text with its finish reason, or the kind of failure and its detail."""

    key: str
    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error_kind: str | None = None
    error_detail: str | None = None


class Engine(Protocol):
    """Requests go in while there is room, answers come out as they finish."""

    @property
    def room(self) -> int:
        """Return how many more requests it takes now."""
        ...

    def submit(self, request: Request) -> None:
        """Take a request; what is wrong with it comes back as its completion. Raises EngineDied."""
        ...

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        """Return what finished since, waiting at most `timeout_seconds` for a first. Raises EngineDied."""
        ...

    def close(self) -> None:
        """Let go of the model and its processes, dead or alive."""
        ...
