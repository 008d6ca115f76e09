"""Generate text with word frequencies as in natural language."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

MESSAGES_PER_CONVERSATION: Final = 8
"""The number of messages of each conversation."""
DIALOGS: Final = 20
USERS: Final = 5_000
A_YEAR: Final = timedelta(days=365)
PLANTED: Final[Mapping[str, int]] = {
    "zqmid": 400, "zqrare": 20_000, "璁璇": 400, "蜜焰龘": 20_000,
}  # fmt: skip
"""Words, and the number of messages of which 1 contains the word."""
OLD_WORD: Final = "zqstale"
"""A word that occurs only in the oldest third of the conversations, in 1 of 25 messages."""
_LETTERS: Final = "etaoinshrdlucmfwypvbgkjqxz"
_STOPS: Final = {True: "。、", False: ",.?!"}


class TextGenerator:
    """Generates Latin and Chinese words. The n-th word is n times as rare as the first."""

    def __init__(self, seed: int) -> None:
        """Generate a vocabulary of realistic size."""
        self.chance = random.Random(seed)  # noqa: S311
        characters = [chr(0x4E00 + number) for number in self.chance.sample(range(8_000), 3_755)]
        self._words = {
            False: ["".join(self._some(_LETTERS, 2, 9)) for _ in range(33_000)],
            True: ["".join(self._some(characters, 1, 3)) for _ in range(30_000)],
        }

    @property
    def common(self) -> tuple[str, str]:
        """The most frequent word of each kind."""
        return self._words[False][0] + " ", self._words[True][0]

    def _some(self, of: Sequence[str], minimum: int, maximum: int) -> list[str]:
        return [self._one(of) for _ in range(self.chance.randint(minimum, maximum))]

    def _one(self, of: Sequence[str]) -> str:
        return of[int(len(of) ** self.chance.random()) - 1]

    def message(self) -> str:
        """Return a message: 1 of 50 is long, the others are short."""
        count = self.chance.choice((3, 5, 8, 12, 20))
        if self.chance.random() < 1 / 50:
            count = self.chance.randint(200, 600)
        is_chinese = self.chance.random() < 1 / 2
        words = [self._one(self._words[is_chinese]) for _ in range(count)]
        for number in range(count - 1, 0, -7):
            words[number] += self.chance.choice(_STOPS[is_chinese])
        text = ("" if is_chinese else " ").join(words)
        return text if is_chinese else text.capitalize()

    def conversations(self, name: str, count: int) -> Iterator[dict[str, object]]:
        """Yield the conversations of one tenant over a year, the oldest first."""
        now = datetime.now(UTC)
        for number in range(count):
            planted = [self._planted() for _ in range(MESSAGES_PER_CONVERSATION)]
            if number < count / 3 and self.chance.random() < MESSAGES_PER_CONVERSATION / 25:
                planted[0] += f" {OLD_WORD}"
            yield {
                "id": f"{name}-{number:032}",
                "dialog_id": f"d{self.chance.randrange(DIALOGS)}",
                "user_id": f"u{self.chance.randrange(USERS)}",
                "name": self.message()[:40],
                "created_at": now - A_YEAR * (count - number) / count,
                "messages": [{"role": "user", "content": text} for text in planted],
            }

    def _planted(self) -> str:
        text = self.message()
        for word, one_of in PLANTED.items():
            if self.chance.random() < 1 / one_of:
                text += f" {word}"
        return text
