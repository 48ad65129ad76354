"""Finding the names in a text: runs of capitalised words. Pure.

A small model invents names when it has to list them. So the text itself says which names there are,
and the model only says what each of them is.
"""

from __future__ import annotations

import re

__all__ = ["ENTITY_ALIASES", "names_in"]

# A word, with initials (J.), inner dots (U.S.), hyphens and apostrophes, but without a final 's.
_WORD = re.compile(r"(?:[^\W\d_]\.)+(?=[\s\w]|$)|\w[\w&-]*(?:['’](?!s\b)\w+)*")

#: Capitalised at the start of a sentence, or always, without being anybody's name.
_NO_NAMES = frozenset(
    """a about after all also an and another any are as at be because before between both but by can
    could day did do does during each every few for from had has have he her here his how however i
    if in into is it its last late later many may meanwhile more most my near new next no nobody not
    now of off often old on once one only or other our out over people perhaps please she since so
    some soon still such than that the their them then there these they this those though through to
    today tomorrow tonight too two under until up was we were what when where which while who why
    will with would yes yesterday yet you your monday tuesday wednesday thursday friday saturday
    sunday january february march april june july august september october november
    december""".split()
)
#: Also names of people, once a name has begun: "Theresa May".
_LAST_NAMES = frozenset({"april", "august", "march", "may", "will"})
#: Say what somebody is, and are no part of the name.
_TITLES = frozenset(
    """ceo cfo chancellor chairman cio coo cto director dr md minister miss mr mrs ms phd president
    prof professor senator sir vp""".split()
)
#: "Bank of England" is one name, "Cook of Apple" is two.
_INSTITUTIONS = frozenset(
    """academy bank bay church city college court department gulf house institute isle kingdom
    ministry museum republic school states university""".split()
)
_PARTICLES = frozenset("al bin da de del den der di du el la las le los van von".split())
_JOINING_GAPS = (" ", " & ")

#: What the usual names of entity types mean, as labels a model knows.
ENTITY_ALIASES = {
    **dict.fromkeys(("people", "person", "persons", "humans", "person_names"), "person"),
    **dict.fromkeys(
        ("organizations", "organization", "organisations", "organisation", "orgs", "org",
         "companies", "company", "institutions"),
        "organization",
    ),
    **dict.fromkeys(
        ("locations", "location", "places", "place", "cities", "city", "countries", "country"),
        "location",
    ),
}  # fmt: skip


def names_in(text: str) -> list[str]:
    """Return the names in ``text`` in their order, each once, as they are written there.

    Example:
        >>> names_in("Dr. Ada King of the Bank of England left London.")
        ['Ada King', 'Bank of England', 'London']
    """
    words = list(_WORD.finditer(text))
    names: dict[str, None] = {}
    index = 0
    while index < len(words):
        end = _name_at(text, words, index)
        if end == index:
            index += 1
            continue
        names[text[words[index].start() : words[end - 1].end()]] = None
        index = end
    return list(names)


def _name_at(text: str, words: list[re.Match[str]], start: int) -> int:
    """Return where the name that begins at word ``start`` ends; ``start`` if none begins there."""
    end = start
    while end < len(words):
        if end > start and not _touch(text, words, end):
            break
        if _is_name_word(words[end].group(), within=end > start):
            end += 1
        elif end > start and (linked := _linked(text, words, end)) > end:
            end = linked
        else:
            break
    return end


def _touch(text: str, words: list[re.Match[str]], index: int) -> bool:
    return text[words[index - 1].end() : words[index].start()] in _JOINING_GAPS


def _is_name_word(word: str, *, within: bool = False) -> bool:
    folded = word.casefold()
    if not word[0].isupper() or folded in _TITLES:
        return False
    return folded not in _NO_NAMES or (within and folded in _LAST_NAMES)


def _linked(text: str, words: list[re.Match[str]], index: int) -> int:
    """Return where a name goes on after the small words at ``index`` ("von der" Leyen), or it."""
    if words[index].group() == "of":
        after = index + (words[index - 1].group().casefold() in _INSTITUTIONS)
    else:
        after = index
        while after < len(words) and words[after].group() in _PARTICLES:
            after += 1
    if after == index or after == len(words):
        return index
    joined = all(_touch(text, words, each) for each in range(index + 1, after + 1))
    return after + 1 if joined and _is_name_word(words[after].group()) else index
