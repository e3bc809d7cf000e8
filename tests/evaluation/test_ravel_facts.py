"""What ravel says of a model that knows too few facts."""

from __future__ import annotations

from dbksvd.evaluation.saebench.evals.ravel import count_prompts, tell_unknown

ENOUGH = {"known": 18, "asked": 40, "answers": 5}


def test_too_few_right_prompts_are_told_in_a_line():
    counts = {"city: Country": ENOUGH, "city: Language": {"known": 4, "asked": 40, "answers": 1}}
    assert tell_unknown(counts, 9) == (
        "expected at least 20 prompts that the model continues right, 9 or more of each attribute, "
        "with 2 answers or more, got 18 of 40 with 5 answers for city: Country; 4 of 40 with 1 "
        "answers for city: Language"
    )
    assert tell_unknown({"city: Country": ENOUGH, "city: Language": ENOUGH}, 9) == ""
    assert "got 18 of 40" in tell_unknown({"city: Country": ENOUGH}, 9)  # 20 in all are needed
    same = {"known": 30, "asked": 40, "answers": 1}
    assert "30 of 40 with 1 answers" in tell_unknown({"a": ENOUGH, "b": same}, 9)


def test_prompts_are_counted_in_all_and_by_attribute():
    counts = {"city: Country": ENOUGH, "city: Language": {"known": 4, "asked": 40, "answers": 1}}
    assert count_prompts(counts) == {
        "prompts_known": 22,
        "prompts_known/city: Country": 18,
        "prompts_known/city: Language": 4,
        "prompts_asked": 80,
        "prompts_asked/city: Country": 40,
        "prompts_asked/city: Language": 40,
    }
