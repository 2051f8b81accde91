"""The one way conformance checks say that a promise does not hold."""


def expect(holds: bool, otherwise: str) -> None:
    """Do nothing when ``holds``.

    Raises:
        AssertionError: With ``otherwise`` as its message.
    """
    if not holds:
        raise AssertionError(otherwise)
