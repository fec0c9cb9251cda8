"""What can go wrong with a message on its way to a platform; adapters translate their libraries' errors to these."""

from __future__ import annotations


class DeliveryError(Exception):
    """The message did not arrive."""


class Limited(DeliveryError):
    """The platform wants us to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"to be tried again in {seconds:.1f} s")
        self.seconds = max(0.0, seconds)


class Unreachable(DeliveryError):
    """No answer, or an error of the platform's own: it may work in a moment."""


class Gone(DeliveryError):
    """The message is not there any more, or cannot be changed any more; a new one may be sent."""


class Refused(DeliveryError):
    """The platform will not have it, now or later: a right is missing, the channel is closed, the token revoked."""
