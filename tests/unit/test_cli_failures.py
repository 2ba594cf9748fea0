"""What a person is told of a call that failed below the coordinator's own errors."""

import grpc

from cloudless.cli.failures import to_failure
from cloudless.errors import TooLarge


class BareError:
    """An error of gRPC itself, without the details a coordinator adds."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "SERVER: Received message larger than max (3000047 vs. 2097152)"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_a_request_that_grpc_finds_too_large_is_told_with_its_cure() -> None:
    failure = to_failure(BareError(), "a:1", writes=True)
    assert isinstance(failure.error, TooLarge)
    assert "split the request" in failure.error.hint
    assert not failure.again
    assert not failure.uncertain
