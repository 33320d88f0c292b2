import pytest

from bridge.policy.spelling import did_you_mean


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("wiat", "; did you mean 'wait'?"),
        ("Wait", "; did you mean 'wait'?"),
        ("zzz", ""),
        ("w" * 10_000, ""),
        ("", ""),
    ],
)
def test_only_close_words_are_suggested(word, advice):
    assert did_you_mean(word, ["wait", "bytes", "messages"]) == advice
