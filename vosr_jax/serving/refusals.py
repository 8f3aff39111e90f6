"""Refusals of requests: an HTTP status and one sentence."""


class Refusal(Exception):
    """A request that is refused or has failed.

    Attributes:
      status: the HTTP status.
      retry_after: seconds after which to try again, or None.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


def loading() -> Refusal:
    """The models are still loading."""
    return Refusal(503, "the models are still being loaded; try again in a moment", 5)


def busy(retry_after: int) -> Refusal:
    """The queue is full."""
    sentence = f"the queue is full; try again in {retry_after} seconds"
    return Refusal(503, sentence, retry_after)


def stopping() -> Refusal:
    """The service has been told to stop."""
    return Refusal(503, "the service is stopping; try again later", 30)


def body_too_large(limit: float) -> Refusal:
    """The body has more bytes than allowed.

    Args:
      limit: the limit in megabytes.
    """
    return Refusal(413, f"the body is larger than {limit:g} MB, the most that is taken here")


def result_too_large(size: tuple[int, int], limit: float) -> Refusal:
    """The result would have too many pixels.

    Args:
      size: (width, height) of the result.
      limit: the limit in megapixels.
    """
    width, height = size
    return Refusal(
        413,
        f"the result would be {width}x{height}, and at most {limit:g} megapixels are made here; "
        "send a smaller picture or a smaller scale",
    )


def too_slow(limit: float, what: str) -> Refusal:
    """Something took longer than allowed.

    Args:
      limit: the limit in seconds.
      what: what is late, for example "the body was not read".
    """
    return Refusal(408, f"{what} within {limit:g} seconds, the limit here")


def failed() -> Refusal:
    """The service itself failed; clients get no details."""
    return Refusal(500, "the service failed at this picture; its log says why")
