"""What can go wrong between the client and its server."""


class SignalingError(Exception):
    """A request failed, or the connection is over; ``code`` is the protocol's, or one of ours.

    Ours: ``closed``, ``refused`` (the server does not want us back), ``session_lost``,
    ``queue_full``, ``bad_frame`` (what the server sends is not ``icebroker.v1``), ``no_token`` (the
    function that gets them failed).
    """

    def __init__(self, code: str, message: str = "", *, retryable: bool = False) -> None:
        super().__init__(message or code)
        self.code = code
        self.retryable = retryable
