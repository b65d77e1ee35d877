"""What each number is of, in a line: two of the same unit may be of different texts."""

BITS = "bits per byte, lower is better"
ABOUT = {
    "train bpb": f"{BITS}: of documents it was trained on",
    "val bpb": f"{BITS}: of documents it was not trained on, also after it has learnt to chat",
    "CORE": "reading and choosing as a base model does: 0 is guessing, 1 all right, mean of tasks",
    "ChatCORE metric": "mean of the chat tasks: 0 is guessing, 1 all right",
    "ARC-Easy": "easy school science, four choices",
    "ARC-Challenge": "hard school science, four choices",
    "MMLU": "57 subjects from school to university, four choices",
    "GSM8K": "school sums told in words, with the calculator",
    "HumanEval": "Python functions that are run against their tests",
    "SpellingBee": "how often a letter stands in a word",
    "probe: identity": "who it is and what it can do, word for word",
    "probe: fact in chat": "facts about people that its chats held, asked in other words",
    "probe: fact in documents": "facts that only its documents held, never a chat",
    "probe: animal": "what animals do and sound like",
    "probe: arithmetic": "sums of pairs it never met; the calculator must be asked right",
    "probe: unknown": "people and places that it cannot know: it must say so, word for word",
    "probe: spelling": "words that no chat ever spelled, letter by letter",
    "probe: letter count": "how often a letter stands in such a word, by the tool",
    "probe: first minute": "what a stranger asks first: hello, who are you, a sum, a story",
    "mean of probes": "of all kinds but the first minute, each counting the same",
}
# What the loss on the way was taken over; the score `val bpb` is of documents for every stage.
VALIDATED = {
    "base": "documents", "mid": "chats, every word", "sft": "chats, the replies alone",
    "rl": "chats, the replies alone",
}  # fmt: skip


def line(score: str) -> str:
    """What a score is of; "" where its name says it."""
    return ABOUT.get(score.split(" (")[0], "")  # CORE (21 of 22 tasks)
