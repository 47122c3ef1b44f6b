"""The refused among an endpoint's last requests: whether they are single ones, or a quota has ended. Pure; knows no time."""

from __future__ import annotations

import math

__all__ = ["SHARE_WINDOW", "Refusals"]

#: Requests of which the share of refusals is taken.
SHARE_WINDOW = 128
#: Requests around a refused one.
NEIGHBOURS = 16
#: A quota has ended where so many requests in a row, in the order of sending, were refused that one request in a hundred thousand meets
#: this by chance: seven where one in five is refused, three where hardly any is. Or so many of the last sixteen. Where a rate is known
#: already, three in a row are enough, or two that ask for a longer wait than one slot of most quotas.
BY_CHANCE, LEAST_RUN, RUN, MOST = 1e-5, 3, 7, 12
#: After so many in a row, or nearly as many as tell, it may have ended.
SUSPICIOUS_RUN = 4
#: Before anything is known, one in five; it counts as much as so many requests.
PRIOR_SHARE, PRIOR_REQUESTS = 0.2, 10
RUN_AT_KNOWN_RATE, RUN_AT_LONG_WAIT, LONG_WAIT_S = 3, 2, 2.0


class Refusals:
    """Which of the last requests were refused, by their numbers in the order of sending.

    Replies overtake each other: a refusal comes back at once and an answer after seconds. So what counts is who was sent beside a refused
    request, not whose reply came beside its reply.
    """

    def __init__(self) -> None:
        self._in_flight: dict[int, int] = {}  # number of a refused request → requests in flight when it was sent
        self._since = 0  # the number from which on refusals are remembered

    def __bool__(self) -> bool:
        return bool(self._in_flight)

    def record(self, number: int, in_flight: int) -> None:
        """`in_flight`: requests in flight when it was sent, with itself."""
        if len(self._in_flight) > 2 * SHARE_WINDOW:
            self._in_flight = {n: count for n, count in self._in_flight.items() if n > number - SHARE_WINDOW}
        self._in_flight[number] = in_flight

    def clear(self) -> None:
        self._since = max(self._in_flight, default=self._since)
        self._in_flight.clear()

    def judge(self, number: int, wait: float | None, *, rate_known: bool) -> tuple[bool, bool]:
        """Whether a quota has ended, and whether it may have: so many in a row were refused. `wait`: this one's Retry-After, seconds."""
        run = self._run(number, RUN)
        if not rate_known:
            wanted = self._telling_run(number, run)
        else:
            wanted = RUN_AT_KNOWN_RATE if wait is None or wait < LONG_WAIT_S else RUN_AT_LONG_WAIT
        return run >= wanted or self.lately(number) >= MOST, run >= min(SUSPICIOUS_RUN, wanted - 2)

    def _telling_run(self, number: int, run: int) -> int:
        """How many refused in a row are no chance, by how many were refused besides this run."""
        requests = min(number - self._since, SHARE_WINDOW) - run
        besides = sum(n > number - SHARE_WINDOW for n in self._in_flight) - run
        share = (max(0, besides) + PRIOR_SHARE * PRIOR_REQUESTS) / (max(0, requests) + PRIOR_REQUESTS)
        return min(RUN, max(LEAST_RUN, math.ceil(math.log(BY_CHANCE) / math.log(min(share, 0.99)))))

    def _run(self, number: int, wanted: int) -> int:
        """How many in a row were refused around this one, counted up to about `wanted`."""
        run = 1
        for step in (-1, 1):
            near = number + step
            while near in self._in_flight and run < wanted:
                run, near = run + 1, near + step
        return run

    def lately(self, number: int) -> int:
        """How many of the last sixteen requests, up to this one, were refused."""
        return sum(n in self._in_flight for n in range(number - NEIGHBOURS + 1, number + 1))

    def share(self, number: int) -> float:
        """The refused part of the last SHARE_WINDOW requests, up to this one; 0 where there were not so many yet."""
        if number <= SHARE_WINDOW:
            return 0.0
        return sum(number - SHARE_WINDOW < n <= number for n in self._in_flight) / SHARE_WINDOW

    def fewest_in_flight(self, after: int) -> int | None:
        """The fewest requests in flight at which one with a number higher than `after` was refused; None where none was."""
        return min((count for n, count in self._in_flight.items() if n > after), default=None)
