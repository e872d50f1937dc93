"""Words: what a collector says to the hosts of a shard, each in a key of its own. Runs in its loop.

A word names the directory whose collector has said it: so that knows again which run it has had, and which somebody has removed since.
The number of a want grows for ever, also from one collector to the next, and a host answers each once: so no want is answered twice.
"""

from __future__ import annotations

import msgspec

from asynctrack.carriers.message import Place
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.wire import ROOT, WORDS_ROOT, WORDS_STREAM, Word, key_of, part_in, word_in
from asynctrack.carriers.wire import PartName
from asynctrack.merging.nats.feed import Feed


class Words:
    """The words of one shard.

    Args:
        link: the connection.
        shard: whose they are.
        by: names the directory of the merged runs.
    """

    def __init__(self, link: NATSLink, shard: str, by: str) -> None:
        self._link = link
        self._shard = shard
        self._by = by
        self._said: dict[PartName, Word] = {}

    def __repr__(self) -> str:
        return f"<Words of shard {self._shard}, {len(self._said)} parts>"

    async def load(self) -> None:
        """Read what was said before, as the servers have it by now: they may have been set back."""
        self._said.clear()
        feed = Feed(self._link, f"{WORDS_ROOT}.{self._shard}.>", stream=WORDS_STREAM)
        try:
            await feed.open()
            said = await feed.all()
        finally:
            await feed.close()
        for one in said:
            name, word = part_in(f"{ROOT}.{one.subject.removeprefix(f'{WORDS_ROOT}.')}"), word_in(one.body)
            if name is not None and word is not None:
                self._said[name] = word

    def of(self, name: PartName) -> Word | None:
        """Return what was said last of a part."""
        return self._said.get(name)

    def merged_in(self, name: PartName, place: Place) -> str | None:
        """Return in which directory all of a part up to a place was merged last; None where it was in none."""
        said = self._said.get(name)
        return said.by if said is not None and said.have >= place else None

    async def say(self, name: PartName, word: Word) -> None:
        """Say something of a part, unless that was said last.

        Raises:
            Retry: the servers do not answer: who says it says it again when the shard is begun anew.
        """
        word = msgspec.structs.replace(word, by=self._by)
        if self._said.get(name) == word:
            return
        answer = await self._link.ask(f"{WORDS_ROOT}.{key_of(name)}", msgspec.json.encode(word))
        self._link.answer_in(answer.data)
        self._said[name] = word

    async def clear(self, name: PartName) -> None:
        """Take back that a part is refused."""
        said = self._said.get(name)
        if said is not None and said.refused is not None:
            await self.say(name, msgspec.structs.replace(said, refused=None))
