"""What one entrance (a connection, the local API) sees of the way down, and what it has yet to tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from edged.downlink.api import Command, CommandResult, State

log = logging.getLogger("edged.commands")

MOST_UNTOLD = 10_000
"""So many results wait for a connection that is gone; the oldest go first. They stay in the audit log."""

Submit = Callable[[str, Command], Awaitable[CommandResult]]
Told = Callable[[int, CommandResult], None]


class Entrance:
    """Implements `edged.downlink.api.Commands` for one entrance."""

    def __init__(self, name: str, submit: Submit, told: Told) -> None:
        """`told` is given the command's number, 0 if it has none."""
        self._name = name
        self._submit = submit
        self._told = told
        self._untold: dict[CommandResult, int] = {}
        self._accepted: dict[int, CommandResult] = {}
        """Those that only say `accepted`, which what follows makes needless."""
        self._given: set[CommandResult] = set()
        """Those that whoever reads now has got, and has not told yet."""
        self._news = asyncio.Event()
        self.dropped = 0

    async def submit(self, command: Command) -> CommandResult:
        """See `edged.downlink.api.Commands`."""
        return await self._submit(self._name, command)

    async def results(self) -> AsyncIterator[CommandResult]:
        """See `edged.downlink.api.Commands`."""
        given = self._given = set()
        while True:
            self._news.clear()
            for result in [one for one in self._untold if one not in given]:
                if result in self._untold:
                    given.add(result)
                    yield result
            await self._news.wait()

    def told(self, result: CommandResult) -> None:
        """See `edged.downlink.api.Commands`."""
        number = self._untold.pop(result, None)
        self._given.discard(result)
        if number is None:
            return
        if self._accepted.get(number) == result:
            del self._accepted[number]
        self._told(number, result)

    def tell(self, number: int, result: CommandResult) -> None:
        """Have this told. `number` is the command's, 0 if it has none."""
        older = self._accepted.pop(number, None) if number else None
        if older is not None:
            self._untold.pop(older, None)
            self._given.discard(older)
        self._untold[result] = number
        if number and result.state is State.ACCEPTED:
            self._accepted[number] = result
        while len(self._untold) > MOST_UNTOLD:
            oldest = next(iter(self._untold))
            self._accepted.pop(self._untold.pop(oldest), None)
            self._given.discard(oldest)
            if not self.dropped:
                log.warning("%s: more than %d results wait to be told; the oldest are dropped", self._name, MOST_UNTOLD)
            self.dropped += 1
        self._news.set()
