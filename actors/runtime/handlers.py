"""``@handles``: which method answers which message, checked when the class is made."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, get_args, get_origin

from actors.runtime.outstanding import Deferred
from protocol.message import AnyMessage, Message, Replies

A = TypeVar("A")
Q = TypeVar("Q")
R = TypeVar("R")

Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]
MARK: Final = "__handles__"


def handles(
    kind: Callable[..., Replies[Q, R]],
) -> Callable[
    [Callable[[A, Q], Coroutine[Any, Any, R | Deferred[R]]]],
    Callable[[A, Q], Coroutine[Any, Any, R | Deferred[R]]],
]:
    """Make an ``async def`` method the handler of messages of this class.

    The method takes the message and returns its reply, or a ``Deferred`` of it: the type checker holds it to that.

    Raises:
        TypeError: ``kind`` is no message class, or the method is no ``async def``.
    """
    if not (isinstance(kind, type) and issubclass(kind, Message)):
        raise TypeError(f"@handles takes a message class, got {kind!r}")

    def mark(
        method: Callable[[A, Q], Coroutine[Any, Any, R | Deferred[R]]],
    ) -> Callable[[A, Q], Coroutine[Any, Any, R | Deferred[R]]]:
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"the handler of {kind.__name__} must be an async def, got {method!r}")
        setattr(method, MARK, kind)
        return method

    return mark


class Handlers(dict[type[AnyMessage], Handler]):
    """From a message's class to its handler. A subclass of a message goes to the handler of its nearest base."""

    def __missing__(self, kind: type) -> Handler:
        for base in kind.__mro__[1:]:
            if base in self:
                return self[base]
        raise KeyError(kind)


def collect(cls: type, form: Any) -> Handlers:  # noqa: ANN401 - a type expression has no type of its own
    """Return the handlers of an actor class whose messages are ``form``.

    Raises:
        TypeError: a message has no handler or several, or a handler's message is not among the actor's; it names them.
    """
    handlers = Handlers()
    doubled = []
    for name in {name: None for base in reversed(cls.__mro__) for name in vars(base)}:
        method = inspect.getattr_static(cls, name)
        kind = getattr(method, MARK, None)
        if kind is None:
            continue
        if kind in handlers:
            doubled.append(kind)
        handlers[kind] = method
    if is_open(form):
        return handlers
    messages = members(cls, form)
    _complain(cls, "has more than one handler for", doubled)
    _complain(cls, "has no handler for", [kind for kind in messages if kind not in handlers])
    _complain(cls, "has a handler for what is not one of its messages:", [k for k in handlers if k not in messages])
    return handlers


def is_open(form: Any) -> bool:  # noqa: ANN401 - a type expression
    """Whether the messages are not known yet, as in a generic base class, or not said, as with ``Any``."""
    return form is None or form is Any or isinstance(form, TypeVar) or bool(getattr(form, "__parameters__", ()))


def members(cls: type, form: Any) -> list[type]:  # noqa: ANN401 - a type expression
    """Return the message classes that a union, or a single class, names.

    Raises:
        TypeError: a member is no message class; a quoted name is not one either.
    """
    origin = get_origin(form)
    if isinstance(form, type) and origin is None:
        kinds = [form]
    elif isinstance(origin, type) and issubclass(origin, Message):
        kinds = [origin]
    else:
        kinds = [kind for part in get_args(form) for kind in members(cls, part)]
    if not kinds or not all(issubclass(kind, Message) for kind in kinds):
        raise TypeError(f"{cls.__qualname__}: its messages must be message classes, unquoted, got {form!r}")
    return kinds


def _complain(cls: type, complaint: str, kinds: list[type]) -> None:
    if kinds:
        names = ", ".join(kind.__qualname__ for kind in kinds)
        raise TypeError(f"{cls.__qualname__} {complaint} {names}")


def messages_of(cls: type, root: type) -> Any:  # noqa: ANN401 - a type expression
    """Return the messages that an actor class names, with the type variables of its generic bases filled in.

    ``root`` is the class that all actors derive from, whose own parameter the messages are.
    """
    for base in vars(cls).get("__orig_bases__", ()):
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, root)):
            continue
        if origin is root:
            return get_args(base)[0]
        filling = dict(zip(origin.__parameters__, get_args(base), strict=True))  # type: ignore[attr-defined]
        form = origin._messages  # type: ignore[attr-defined]  # noqa: SLF001 - a class of ours
        if isinstance(form, TypeVar):
            return filling[form]
        parameters = getattr(form, "__parameters__", ())
        return form[tuple(filling[parameter] for parameter in parameters)] if parameters else form
    return cls._messages  # type: ignore[attr-defined]
