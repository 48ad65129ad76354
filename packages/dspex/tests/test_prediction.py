from __future__ import annotations

import copy
import pickle

import pytest

from dspex.errors import OutputFieldMissing
from dspex.prediction import Answer, Prediction


def test_fields_are_read_by_attribute_and_by_item() -> None:
    result = Prediction({"answer": "Paris", "score": 0.5})
    assert result.answer == result["answer"] == "Paris"
    assert dict(result) == {"answer": "Paris", "score": 0.5}
    assert len(result) == 2
    assert "answer" in result
    assert result == {"answer": "Paris", "score": 0.5}


def test_repr_shows_the_fields() -> None:
    assert repr(Prediction({"answer": "Paris", "n": 1})) == "Prediction(answer='Paris', n=1)"


@pytest.mark.parametrize("read", [lambda p: p.anwser, lambda p: p["anwser"]])
def test_a_missing_field_names_those_there_are(read: object) -> None:
    with pytest.raises(OutputFieldMissing, match="'anwser'; it has: answer, score") as caught:
        read(Prediction({"answer": "Paris", "score": 1}))  # type: ignore[operator]
    assert caught.value.details == {"field": "anwser", "available": ["answer", "score"]}


def test_the_protocols_that_probe_for_a_field_work() -> None:
    result = Prediction({"answer": "Paris"})
    assert not hasattr(result, "other")
    assert "other" not in result
    assert result.get("other", 7) == 7
    assert getattr(result, "other", 7) == 7


def test_a_prediction_is_read_only() -> None:
    result = Prediction({"answer": "Paris"})
    with pytest.raises(AttributeError, match="read-only"):
        result.answer = "Rome"
    with pytest.raises(TypeError):
        result["answer"] = "Rome"


def test_a_prediction_does_not_follow_changes_of_what_it_was_made_from() -> None:
    fields = {"answer": "Paris"}
    result = Prediction(fields)
    fields["answer"] = "Rome"
    assert result.answer == "Paris"


def test_a_prediction_survives_copy_and_pickle() -> None:
    result = Prediction({"answer": ["Paris"]})
    assert copy.deepcopy(result) == result
    assert pickle.loads(pickle.dumps(result)) == result


def test_a_field_named_like_a_mapping_method_is_reached_by_item() -> None:
    result = Prediction({"items": 3})
    assert result["items"] == 3
    assert list(result.items()) == [("items", 3)]


def test_completion_offers_the_fields() -> None:
    assert "answer" in dir(Prediction({"answer": 1}))


def test_an_answer_is_a_str_with_reasoning() -> None:
    answer = Answer("Paris", reasoning="because")
    assert answer == "Paris"
    assert isinstance(answer, str)
    assert answer.reasoning == "because"
    assert Answer("Rome").reasoning is None
    copied = pickle.loads(pickle.dumps(answer))
    assert (copied, copied.reasoning) == ("Paris", "because")
