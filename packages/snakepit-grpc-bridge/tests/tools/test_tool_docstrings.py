"""What docstrings of the three styles say of a tool."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_grpc_bridge.tools.schema.docstrings import read_docstring

GOOGLE = """
    Book a table.

    The guest is asked to confirm.

    Args:
        guest (str): Who comes: the
            name as it is written.
        seats (int, optional): How many. Defaults to 2.
        **wishes: What else.

    Keyword Args:
        when: The day.

    Returns:
        bool: Whether there was one.

    Raises:
        ValueError: the day is over.

    Note:
        Once only.

    Example:
        >>> book("Ann")
        True
    """
NUMPY = """
    Book a table.

    The guest is asked to confirm.

    Parameters
    ----------
    guest : str
        Who comes: the
        name as it is written.
    seats : int, optional
        How many. Defaults to 2.
    **wishes
        What else.

    Other Parameters
    ----------------
    when : date
        The day.

    Returns
    -------
    bool
        Whether there was one.

    Notes
    -----
    Once only.
    """
SPHINX = """
    Book a table.

    The guest is asked to confirm.

    :param guest: Who comes: the
        name as it is written.
    :param int seats: How many. Defaults to 2.
    :param wishes: What else.
    :param when: The day.
    :type when: date
    :returns: Whether there was one.
    :raises ValueError: the day is over."""


@pytest.mark.parametrize(
    ("doc", "notes"), [(GOOGLE, ["Note: Once only."]), (NUMPY, ["Notes: Once only."]), (SPHINX, [])]
)
def test_styles(doc: str, notes: list[str]) -> None:
    text, parameters = read_docstring(inspect.cleandoc(doc))
    assert text.split("\n\n") == ["Book a table.", "The guest is asked to confirm.", *notes]
    assert parameters == {
        "guest": "Who comes: the\nname as it is written.",
        "seats": "How many. Defaults to 2.",
        "wishes": "What else.",
        "when": "The day.",
    }


@pytest.mark.parametrize(
    "doc",
    [
        "",
        "Book a table.",
        "Book a table.\n\nImportant: call it once.\n\nSee http://there: it says more.",
        "Book a table.\n\n- one: first\n- two: second",
        "Args: what is given.",
    ],
)
def test_text_alone_stays_as_it_is(doc: str) -> None:
    assert read_docstring(doc) == (doc, {})


def test_one_line_may_be_a_parameter() -> None:
    assert read_docstring(":param x: The first.") == ("", {"x": "The first."})


PARTS = ["Args:", "Returns:", "Note:", ":param x:", ":type", "Parameters", "----", "  ", "x", "\n"]


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=20).map("".join))
def test_any_text_can_be_read(doc: str) -> None:
    text, parameters = read_docstring(inspect.cleandoc(doc))
    assert len(text) + sum(map(len, parameters.values())) <= 2 * len(doc) + 20
