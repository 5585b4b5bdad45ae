"""Tickets: one use, a few seconds."""

import pytest

from protocol.errors import AccessDenied, Overloaded
from protocol.identity import ANONYMOUS, Principal
from service.auth.tickets import TICKET_TTL, Tickets


class Clock:
    """Unix seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_carries_its_caller_once() -> None:
    """The second use is refused."""
    tickets, someone = Tickets(), Principal(tenant="acme", subject="ann")
    ticket, _ = tickets.issue(someone)
    assert tickets.redeem(ticket) is someone
    with pytest.raises(AccessDenied) as caught:
        tickets.redeem(ticket)
    assert (caught.value.code, len(tickets)) == ("invalid_ticket", 0)


@pytest.mark.parametrize("ticket", ["", "tk_", "x" * 10_000, "\udcff", "clé"])
def test_what_is_no_ticket_lets_nobody_in(ticket: str) -> None:
    """Any other text is refused."""
    with pytest.raises(AccessDenied):
        Tickets().redeem(ticket)


def test_a_ticket_ends() -> None:
    """An expired ticket is refused, and stays refused."""
    clock = Clock()
    tickets = Tickets(clock=clock)
    ticket, ends = tickets.issue(ANONYMOUS)
    assert ends == clock.now + TICKET_TTL
    clock.now = ends
    for _ in range(2):
        with pytest.raises(AccessDenied):
            tickets.redeem(ticket)


def test_a_ticket_lasts_no_longer_than_what_it_was_had_by() -> None:
    """A ticket expires no later than the token that it was issued for."""
    clock = Clock()
    _, ends = Tickets(clock=clock).issue(Principal(expires=clock.now + 1))
    assert ends == clock.now + 1


def test_a_ticket_goes_with_the_key_that_it_was_had_by() -> None:
    """The tickets of a removed key are invalid; other tickets stay."""
    tickets = Tickets()
    ann, bob = (Principal(tenant="acme", subject=name, credential=name.encode()) for name in ("ann", "bob"))
    hers, his = tickets.issue(ann)[0], tickets.issue(bob)[0]
    tickets.withdraw(ann)
    with pytest.raises(AccessDenied):
        tickets.redeem(hers)
    assert tickets.redeem(his) == bob


def test_unused_tickets_are_bounded() -> None:
    """At the limit a new ticket is refused until the first ones have expired."""
    clock = Clock()
    tickets = Tickets(limit=2, clock=clock)
    first, _ = tickets.issue(ANONYMOUS)
    tickets.issue(ANONYMOUS)
    with pytest.raises(Overloaded):
        tickets.issue(ANONYMOUS)
    tickets.redeem(first)
    tickets.issue(ANONYMOUS)
    clock.now += TICKET_TTL
    tickets.issue(ANONYMOUS)
    assert len(tickets) == 1


def test_tickets_are_not_kept() -> None:
    """Only the digests of tickets are stored."""
    tickets = Tickets()
    ticket, _ = tickets.issue(ANONYMOUS)
    assert ticket not in repr(tickets._held)
