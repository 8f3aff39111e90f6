"""Why a request gets no picture: a status of HTTP and one sentence."""


class Refusal(Exception):
    """A request that is not carried out.

    Attributes:
      status: of HTTP.
      retry_after: seconds after which another try may do better, or None.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


def loading() -> Refusal:
    """The models are not there yet."""
    return Refusal(503, "the models are still being loaded; try again in a moment", 5)


def busy(retry_after: int) -> Refusal:
    """The queue is full."""
    sentence = f"the queue is full; try again in {retry_after} seconds"
    return Refusal(503, sentence, retry_after)


def stopping() -> Refusal:
    """The service has been told to stop."""
    return Refusal(503, "the service is stopping; try again later", 30)


def body_too_large(limit: float) -> Refusal:
    """More bytes than allowed.

    Args:
      limit: in megabytes.
    """
    return Refusal(413, f"the body is larger than {limit:g} MB, the most that is taken here")


def result_too_large(size: tuple[int, int], limit: float) -> Refusal:
    """A picture whose result would have too many pixels.

    Args:
      size: (width, height) of the result.
      limit: in megapixels.
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
      limit: in seconds.
      what: "the body was not read" or the like.
    """
    return Refusal(408, f"{what} within {limit:g} seconds, the limit here")


def failed() -> Refusal:
    """A fault of the service itself, of which clients learn no more."""
    return Refusal(500, "the service failed at this picture; its log says why")
