"""What a log line says of its own fields."""


class OutsideTexts(tuple[str, ...]):
    """Names of the fields of a line whose texts are not the program's own: a caller's, an upstream's, an operator's.

    A record with this as its attribute ``outside`` promises that its other fields are numbers and constants of the
    program. The service's log then looks for secrets in these fields alone, which for a line of each request is a third
    of its cost.
    """

    __slots__ = ()
