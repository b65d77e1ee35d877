from nanochat_jax.serve.engine.slots import (
    NO_PREFIX,
    Prefix,
    Slot,
    best_prefix,
    choose_slot,
    common_prefix,
)

SYSTEM = list(range(20))


def slots(*held):
    made = [Slot(row, tokens=list(h), cached=len(h), used_at=row) for row, h in enumerate(held)]
    return made


def test_the_longest_cached_beginning_wins_and_the_last_token_is_always_fed():
    prompt = [*SYSTEM, 1, 2, 3]
    rows = slots(SYSTEM, [*SYSTEM, 1, 2, 3, 4], [*SYSTEM, 1])
    assert best_prefix(prompt, rows, {0: []}) == (len(prompt) - 1, 0, rows[1])
    assert best_prefix(prompt, rows[:1], {0: [], 1: prompt}) == (len(prompt) - 1, 1, None)
    assert best_prefix(prompt, slots([0, 1, 2]), {0: []}) == NO_PREFIX  # not worth a copy


def test_tokens_the_cache_does_not_hold_are_no_prefix():
    slot = Slot(0, tokens=[*SYSTEM, 1, 2], cached=10)
    assert best_prefix([*SYSTEM, 1], [slot], {}) == (10, 0, slot)


def test_a_chat_that_goes_on_stays_in_its_row():
    rows = slots(SYSTEM, [], [])
    assert choose_slot(rows, Prefix(20, 0, rows[0]), near=3) is rows[0]


def test_a_chat_that_only_begins_like_another_leaves_its_row_alone():
    rows = slots([*SYSTEM, *range(100, 200)], [7] * 30, [8] * 9)
    prefix = Prefix(20, 0, rows[0])
    assert choose_slot(rows, prefix, near=3).row == 0  # left longest ago
    rows[0].used_at = 9
    assert choose_slot(rows, prefix, near=3) is rows[1]
    rows.append(Slot(3))
    assert choose_slot(rows, prefix, near=4) is rows[3]  # empty


def test_what_a_device_holds_is_continued_there():
    rows = [Slot(0, 0), Slot(1, 1), Slot(2, 0, used_at=1), Slot(3, 1, used_at=2)]
    assert choose_slot(rows, Prefix(9, 1, None), near=1) is rows[1]
    assert choose_slot(rows[2:], Prefix(9, 1, rows[1]), near=4) is rows[3]


def test_low_rows_come_first_while_they_last():
    rows = slots([1] * 9, [2] * 9, [], [])
    assert choose_slot(rows, NO_PREFIX, near=2) is rows[0]
    assert choose_slot(rows[2:], NO_PREFIX, near=2) is rows[2]


def test_a_common_prefix_ends_where_prompts_differ_or_the_shorter_one_ends():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == common_prefix([1, 2, 3], [1, 2]) == 2
    assert common_prefix([], [1]) == 0
