"""The fast way through plain prose gives what the careful one gives, to the character."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.analyzer import terms, token_text
from core.splitters.counting import token_counter
from core.splitters.packing import Lines, render
from core.splitters.packing import pack as pack_pieces
from core.splitters.pieces import Cutter
from core.splitters.prose import Words, pack, read
from core.types import Locator, Section

COUNT = token_counter("")
WORDS = Words(COUNT)
WORDS_OF_ALL_KINDS = """
Tea is served at four. Why? No. 5 e.g. U.S. Dr. Smith etc. (see Fig. 3). "Yes." said! 3.14 i.e., Inc. The a.m. 1.
12. - * # item48392. Item48392, item48392.5 4839217 C++ don't state-of-the-art Q&A .NET 1,000,000 v2.0 end.)
'quoted.' what?! so... _it_. **bold.** foo_bar camelCase X 42. vs. No 7 A. I. ``` > | x: ... ! a.b. naïve"""
GAPS = [" "] * 24 + ["\n"] * 4 + ["\n\n"] * 2 + ["  ", " \n", "\n ", "\n \n", "\n\n\n", "\t"]
TEXTS = st.lists(
    st.tuples(st.sampled_from(WORDS_OF_ALL_KINDS.split()), st.sampled_from(GAPS)), min_size=1, max_size=150
).map(lambda parts: "".join(word + gap for word, gap in parts))

Cut = tuple[str, str, int | None, int | None]


def careful(section: Section, size: int, overlap: int) -> list[Cut]:
    rendered = [render([section], pieces) for pieces in pack_pieces(Cutter([section], COUNT, size), size, overlap)]
    return [(text, token_text(text), where.first, where.last) for text, where in rendered if text]


def fast(section: Section, size: int, overlap: int) -> list[Cut] | None:
    prose = read(section.text, COUNT, WORDS)
    cuts = prose and pack(prose, size, overlap)
    if not prose or not cuts:
        return None
    lines = Lines(section)
    found = []
    for first, last in cuts:
        start = prose.begins[first]
        text = section.text[start : prose.begins[last]].strip()
        between = slice(prose.words[first], prose.words[last])
        tokens = "".join(prose.tokens[between])
        assert b"".join(prose.terms[between]) == terms(tokens)
        found.append((text, tokens[1:], *lines.between(start, start + len(text))))
    return found


@settings(max_examples=200, deadline=None)
@given(text=TEXTS.map(str.strip), size=st.sampled_from([16, 32, 64]), overlap=st.sampled_from([0, 5, 12]))
@example(text="Tea etc. A\nNext line. And so on until the end of it.", size=16, overlap=5)
@example(text="One. Two.  Three three.\n\n\nFour. five. Six.\nSeven is\nlonger. Eight.", size=16, overlap=5)
@example(text="Of item48392. And item48392.\nItem48392, too. 1,048,392. 12. 4839217. E.", size=16, overlap=5)
def test_plain_prose_is_cut_as_anything_else(text: str, size: int, overlap: int) -> None:
    """Also where what is known of words was learnt from other texts."""
    section = Section(text, locator=Locator("lines", "", 7, 7 + text.count("\n")))
    found = fast(section, size, overlap)
    if found is not None:
        assert found == careful(section, size, overlap)


def test_most_english_prose_goes_the_fast_way() -> None:
    text = "The council met on May 3. It was late, i.e. dark.\nNo. 5 was left over (see above). " * 9
    assert fast(Section(text.strip()), 40, 10)
    assert len(fast(Section(text.strip()), 40, 10) or ()) == len(careful(Section(text.strip()), 40, 10))


@pytest.mark.parametrize("text", ["茶。 Tea.", "Tea\tis hot.", "Tea.\r\nHot.", " Tea.", "Tea. ", "a" * 999])
def test_what_is_not_plain_prose_is_left_to_the_careful_way(text: str) -> None:
    assert fast(Section(text), 16, 0) is None
