"""Multiple choice: the text of a question, and the score of the letter that answers it.

Source: nanochat `tasks/common.py`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nanochat_jax.tokenizer.chat_format import Conversation, exchange


class UnknownLetter(ValueError, AssertionError):
    """An answer that is none of the question's letters. Also of the type the original raises."""


class Question(NamedTuple):
    """A question before it is put in words; `answer` is one of the letters, `about` goes along."""

    text: str
    letters: Sequence[str]
    choices: Sequence[str]
    answer: str
    about: Mapping[str, Any] = {}

    @property
    def right(self) -> str:
        """The choice that answers it."""
        return self.choices[list(self.letters).index(self.answer)]

    def conversation(self) -> dict[str, Any]:
        """In words, as it is asked; raises ValueError as `conversation`."""
        return conversation(self.text, self.letters, self.choices, self.answer, **self.about)


def shuffled(asked: Question, seed: int = 0) -> Question:
    """The same choices in other places: the letters stay where they are, the answer's is now that
    of the place where the right choice went."""
    letters, n = list(asked.letters), len(asked.choices)
    # By the question's own words: the same order whichever others are asked, on every machine.
    order = random.Random(f"{seed} {asked.text} {asked.choices}").sample(range(n), n)
    answer = letters[order.index(letters.index(asked.answer))]
    return asked._replace(choices=[asked.choices[i] for i in order], answer=answer)


def without_question(asked: Question) -> Question:
    """The choices alone."""
    return asked._replace(text="")


def question(text: str, letters: Sequence[str], choices: Sequence[str]) -> str:
    """The question with a line `- choice=letter` for each choice."""
    # The letter after its choice, not before: small models bind the two better so. And no space
    # before it: " A" and "A" are two tokens, and the answer begins with the second.
    lines = (f"- {choice}={letter}" for letter, choice in zip(letters, choices, strict=False))
    head = f"Multiple Choice question: {text}"
    return "\n".join((head, *lines, "", "Respond only with the letter of the correct answer."))


def conversation(
    text: str, letters: Sequence[str], choices: Sequence[str], answer: str, **extras: Any
) -> dict[str, Any]:
    """The question, its letter as the answer, the letters beside them; ValueError for no letter."""
    letters = list(letters)
    if answer not in letters:
        raise ValueError(
            f"the answer {answer!r} is none of the letters {letters} of {text!r:.80}; "
            "the row is damaged, or of another format"
        )
    return exchange(question(text, letters, choices), answer, **extras, letters=letters)


def score(conversation: Conversation, answer: str) -> float:
    """1.0 for the right letter. Raises UnknownLetter for what is none of the letters."""
    letters = conversation["letters"]
    if answer not in letters:
        raise UnknownLetter(f"expected one of {', '.join(letters)}, got {answer!r:.40}")
    return float(answer == conversation["messages"][-1]["content"])


def reward(conversation: Conversation, answer: str) -> float:
    """1.0 for the right letter and nothing else; any other text is simply wrong."""
    # Not `score`: a policy samples any text, and one that is no letter must cost it, not stop it.
    return float(answer.strip() == conversation["messages"][-1]["content"])
