"""Text to search tokens, the same for documents and questions, for every store.

Latin and other spaced scripts give lower-cased words with accents folded and English endings taken off; scripts without
spaces (Chinese, Japanese, Korean, Thai, …) give single characters and pairs. A word with something inside gives its
parts and its whole: `e-mail` -> mail, email; `getUserName` -> get, user, name, getusernam; `C++` -> c, cplusplus.
A token holds letters and digits only. Time is linear in the length of the text, whatever it holds.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from operator import add
from typing import Final

import Stemmer

VERSION: Final = "1"
"""Part of an index's fingerprint: it changes whenever a text could get other tokens."""

_MAX_TOKEN: Final = 48
"""Longer tokens are cut: nobody types them, and rubbish must not fill the index."""
_MAX_CACHED_WORD: Final = 24
_MAX_CACHE: Final = 60_000
_MAX_TERMS: Final = 300_000
_SHORT_NUMBER: Final = 4
"""What ends in a digit and is longer seldom comes again."""
TERM_BYTES: Final = 8

# Scripts written without spaces between words. Ranges of letters and the marks that belong to them.
_UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana, 々〆〇
    "\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # bopomofo, Han
)
_LETTER: Final = rf"[^\W_{_UNSPACED}]"
_PIECE: Final = re.compile(
    rf"([{_UNSPACED}]+)"
    rf"|(?<![\d.,])(\d{{1,3}}(?:,\d{{3}})+)(?![\d,])"
    rf"|((?:(?<![\w.])\.(?=[A-Za-z]))?{_LETTER}+(?:[-._'’@&+]{_LETTER}+)*(?:\+\+(?!{_LETTER})|\#(?!{_LETTER}))?)"
)
"""A run of an unspaced script, a number with thousands separators, or a word with what joins it inside."""
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+")
_BEFORE: Final = "\"'([{<"
_BEHIND: Final = "\"')]}>,;:.!?"
"""Marks that change nothing about the plain ASCII word they stand beside."""
_NUMBERED: Final = re.compile(r"([A-Z]?[a-z]{2,20})(\d{5,20})[,;:.!?)]*\Z")
"""A name with a long number, as `item471147`."""
_JOINED: Final = re.compile(r"[-._'’@&+]")
_FOLDED: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_HAS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")
_WIDE_PUNCTUATION: Final = re.compile("[\u3001-\u3004\u3008-\u301f！（），：；？【】“”‘…—、。《》「」～·]+")
"""What only separates words. Without it most Chinese text is in normal form already."""
_MARK: Final = re.compile(
    "[" + "".join(chr(c) for c in range(0x300, 0x1A00) if unicodedata.category(chr(c)) in ("Mn", "Mc", "Me")) + "]+"
)
"""Vowel signs, tones and accents that are left over in normal form: a token goes without them."""


def tokens(text: str) -> list[str]:
    """The tokens of a document's text, in order and with repetitions."""
    if not text.isascii():
        text = _normalised(text)
        if _HAS_UNSPACED.search(text):
            return _pieces(text)
    found: list[str] = []
    known = _CACHE.get
    for word in text.split():
        cached = known(word)
        found += _cached_pieces(word) if cached is None else cached
    return found


def token_text(text: str) -> str:
    """As `tokens`, joined by spaces; the fast way for much text."""
    if text.isascii():
        return "".join(map(_TEXTS.__getitem__, text.split()))[1:]
    return " ".join(tokens(text))


def ascii_word_text(word: str) -> str:
    """The tokens of what stands between white space in ASCII text, with a space before each."""
    return _TEXTS[word]


def terms(text: str) -> bytes:
    """What an index keeps of tokens (a string with spaces between): eight bytes of each one's hash, little-endian."""
    return b"".join(map(_TERMS.__getitem__, text.split()))


def term(token: str) -> bytes:
    """The eight bytes of one token; `terms` remembers, this does not."""
    return term_hasher(token).digest()


def term_hasher(start: str) -> blake2b:
    """What a token's term is the digest of, where the token goes on as the hasher is updated."""
    hasher = _HASH.copy()
    hasher.update(start.encode("utf-8", "surrogatepass"))
    return hasher


def query_tokens(text: str) -> list[str]:
    """The distinct tokens of a question, in order; words that only ask are left out, unless nothing else is there."""
    found = [token for token in dict.fromkeys(tokens(_without_asking(text))) if token not in FUNCTION_WORDS]
    return found or list(dict.fromkeys(tokens(text)))


def query_units(text: str) -> list[tuple[str, ...]]:
    """The question's parts in order, each as the tokens of which any one shows that a text speaks of it.

    A spaced word is a part, and so is each character of an unspaced script, shown by the pairs it belongs to. Words
    that only ask are left out, unless nothing else is there.
    """
    return _units(_without_asking(text)) or [(token,) for token in query_tokens(text)]


def _without_asking(text: str) -> str:
    return _ASKING.sub(lambda match: match[1] or " ", _normalised(text))


def _units(text: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for run, number, word in _PIECE.findall(_normalised(text)):
        if run:
            run = _alphanumeric(run)
            pairs = ["", *map(add, run, run[1:]), ""]
            found += [tuple(filter(None, both)) or (run,) for both in pairwise(pairs)]
        else:
            found.append((number.replace(",", "")[:_MAX_TOKEN],) if number else tuple(_word_tokens(word)))
    return [unit for unit in found if any(token and token not in FUNCTION_WORDS for token in unit)]


def script_shares(text: str) -> dict[str, float]:
    """Share of the text's letters by script, e.g. `{"Latin": 0.6, "Han": 0.4}`; empty where it has no letters."""
    if text.isascii():
        return {"Latin": 1.0} if any(map(str.isalpha, text)) else {}
    counts: dict[str, int] = {}
    for char in unicodedata.normalize("NFKC", text):
        if char.isalpha():
            script = _script(char)
            counts[script] = counts.get(script, 0) + 1
    total = sum(counts.values())
    return {script: count / total for script, count in counts.items()}


def _token_set(words: str) -> frozenset[str]:
    return frozenset(token for word in words.split() for token in (word, *_word_tokens(word)))


def _longest_first(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


def is_unspaced(text: str) -> bool:
    """Whether it holds a character of a script that is written without spaces between words."""
    return _HAS_UNSPACED.search(text) is not None


class _Cache(dict[str, tuple[str, ...]]):
    """Tokens of the words seen lately; emptied when full, so that it never grows beyond some megabytes."""

    def keep(self, word: str, found: Sequence[str]) -> None:
        if len(word) > _MAX_CACHED_WORD:
            return
        if len(self) >= _MAX_CACHE:
            self.clear()
        self[word] = tuple(found)


class _Texts(dict[str, str]):
    """Word -> its tokens, with a space before each; filled as words are asked for, and emptied when full."""

    def __missing__(self, word: str) -> str:
        if numbered := _NUMBERED.match(word):
            name, number = numbered.groups()
            return f" {_stem(name)} {number} {name.lower()}{number}"  # too many to be worth keeping
        found = _pieces_of_word(word)
        text = f" {found[0]}" if len(found) == 1 else " ".join(["", *found])
        if len(word) <= _MAX_CACHED_WORD:
            if len(self) >= _MAX_CACHE:
                self.clear()
            self[word] = text
        return text


_HASH: Final = blake2b(digest_size=TERM_BYTES)


class _Terms(dict[str, bytes]):
    """Token -> its hash; emptied before it grows without end."""

    def __missing__(self, token: str) -> bytes:
        found = term(token)
        if len(token) <= _SHORT_NUMBER or not token[-1].isdigit():
            if len(self) >= _MAX_TERMS:
                self.clear()
            self[token] = found
        return found


_CACHE: Final = _Cache()
_TERMS: Final = _Terms()
_TEXTS: Final = _Texts()
_STEMMER: Final = Stemmer.Stemmer("english", 0)
_STEMMER_LOCK: Final = threading.Lock()


def _normalised(text: str) -> str:
    text = unicodedata.normalize("NFKC", _WIDE_PUNCTUATION.sub(" ", text))
    return _MARK.sub("", text)


def _cached_pieces(word: str) -> Sequence[str]:
    """Tokens of a word as it stands between white space, punctuation and all."""
    found = _pieces_of_word(word)
    _CACHE.keep(word, found)
    return found


def _pieces_of_word(word: str) -> Sequence[str]:
    """As `_pieces`, for what stands between white space; plain words and numbers need no pattern."""
    core = word.rstrip(_BEHIND).lstrip(_BEFORE)
    if not (core.isascii() and core.isalnum()):
        return _pieces(word)
    if core.isdigit():
        return (core[:_MAX_TOKEN],)
    if core.isalpha() and (core[1:].islower() or core.isupper()):
        return (_stem(core),)
    parts = _PART.findall(core)
    if len(parts) < 2:
        return (_stem(core),)
    found = [part[:_MAX_TOKEN] if part.isdigit() else _stem(part) for part in parts if len(part) > 1 or part.isdigit()]
    if len(core) <= _MAX_TOKEN:
        found.append(_stem(core) if core.isalpha() else core.lower())
    return found


def _pieces(text: str) -> list[str]:
    found: list[str] = []
    for run, number, word in _PIECE.findall(text):
        if run:
            run = _alphanumeric(run)  # some signs of these blocks are no letters
            found += run
            found += map(add, run, run[1:])
        elif number:
            found.append(number.replace(",", "")[:_MAX_TOKEN])
        else:
            found += _CACHE.get(word) or _cached_word(word)
    return found


def _cached_word(word: str) -> Sequence[str]:
    found = list(_word_tokens(word))
    _CACHE.keep(word, found)
    return found


def _word_tokens(word: str) -> Iterator[str]:
    if word.isalpha() and (word[1:].islower() or word.islower() or word.isupper()):
        yield _stem(word)
        return
    core = word
    if word.endswith("++"):
        core = word[:-2]
        yield _clean(core + "plusplus")
    elif word.endswith("#"):
        core = word[:-1]
        yield _clean(core + "sharp")
    if core.startswith("."):
        core = core[1:]
        yield _clean("dot" + core)
    if core[-2:].lower() in ("'s", "’s"):
        core = core[:-2]
    yield from _whole_and_parts(core)


def _whole_and_parts(word: str) -> Iterator[str]:
    pieces = _JOINED.split(word)
    whole = "".join(pieces)
    parts = [part for piece in pieces for part in _PART.findall(piece)]
    if len(parts) < 2:
        yield _stem(whole)
        return
    shortest = 3 if "'" in word or "’" in word else 2
    for part in parts:
        if len(part) >= shortest or part.isdigit():
            yield _stem(part)
    if len(whole) <= _MAX_TOKEN and not (whole.isdigit() and "-" in word):
        yield _stem(whole)


def _stem(word: str) -> str:
    folded = _clean(word)
    if len(folded) < 4 or not folded.isalpha():
        return folded
    with _STEMMER_LOCK:
        return str(_STEMMER.stemWord(folded))


def _clean(word: str) -> str:
    """Lower case, accents folded, letters and digits only, not too long."""
    word = word[:_MAX_TOKEN].lower()
    if word.isascii():
        return _alphanumeric(word)
    word = _MARK.sub("", unicodedata.normalize("NFKD", word.translate(_FOLDED)))
    return _alphanumeric(unicodedata.normalize("NFKC", word)[:_MAX_TOKEN])


def _alphanumeric(text: str) -> str:
    return text if text.isalnum() else "".join(filter(str.isalnum, text))


_SCRIPTS: Final = (
    ("LATIN", "Latin"),
    ("CJK", "Han"),
    ("HIRAGANA", "Hiragana"),
    ("KATAKANA", "Katakana"),
    ("HANGUL", "Hangul"),
    ("CYRILLIC", "Cyrillic"),
    ("GREEK", "Greek"),
    ("ARABIC", "Arabic"),
    ("HEBREW", "Hebrew"),
    ("THAI", "Thai"),
    ("DEVANAGARI", "Devanagari"),
)


def _script(char: str) -> str:
    if char.isascii():
        return "Latin"
    if "\u4e00" <= char <= "\u9fff" or char in "々〆〇":
        return "Han"
    name = unicodedata.name(char, "")
    return next((script for prefix, script in _SCRIPTS if name.startswith(prefix)), "Other")


FUNCTION_WORDS: Final = _token_set(
    "a an the this that these those it its he him his she her hers they them their theirs we us our you your i me my "
    "and or but nor so if then than as of in on at to for by from with into onto upon there here also please tell "
    "is are was were be been being am do does did done doing have has had having can could will would shall should may "
    "might must what which who whom whose when where why how many much any some such "
    "don't doesn't didn't isn't aren't wasn't weren't can't couldn't won't wouldn't haven't hasn't hadn't i'm i've i'd "
    "在 和 与 與 及 或 被 把 将 將 对 對 从 從 到 由 于 於 以 为 為 其 它 他 她 我 你 您 们 們 这 這 那 都 也 就 还 還 "
    "又 很 最 不 能 会 會 要 让 讓 所 之 而 个 個 位"
)
"""Tokens that say nothing of what a question is about."""
_HOLDS_ASKING: Final = _longest_first(
    "目的 标的 有的放矢 的士 的确 了解 了结 了不起 公了 明了 是非 国是 什锦 几何 几乎 几率 请假 请求 申请 邀请 "
    "標的 的確 了結 國是 幾何 幾乎 幾率 請假 請求 申請 邀請"
)
_ONLY_ASKS: Final = _longest_first(
    "什么时候 什么时间 什么地方 什么样 什么人 什么 哪一年 哪一个 哪一种 哪一天 哪些 哪个 哪年 哪里 哪儿 哪位 "
    "哪种 哪几个 哪几种 哪几 哪两个 哪两 哪 多少 多久 多大 几个 几年 几种 几次 几 为什么 为何 何时 何地 何人 "
    "何种 何处 如何 怎么样 怎么 怎样 是否 是谁 谁 有没有 是不是 能不能 可不可以 请问一下 请问 请 吗 呢 吧 么 "
    "一下 能给我 给我 告诉我 介绍一下 有哪些 的 了 是 什麼時候 什麼時間 什麼地方 什麼樣 什麼人 什麼 哪一個 "
    "哪一種 哪個 哪裡 哪裏 哪兒 哪種 哪幾個 哪幾種 哪幾 哪兩個 哪兩 幾個 幾年 幾種 幾次 幾 為什麼 為何 何時 何種 "
    "何處 怎麼樣 怎麼 怎樣 是誰 誰 有沒有 請問一下 請問 請 嗎 麼 能給我 給我 告訴我 介紹一下 多少钱 的时候 时候 "
    "可以 能够 应该 我们 我 你们 最多 最少 至少 一共 总共 大概 大约 这边 那边 这里 那里 以后 之后 怎么办 怎么做 "
    "现在 目前 一般 通常 分别 主要 多少錢 的時候 時候 能夠 應該 我們 你們 總共 大約 這邊 那邊 這裡 那裡 以後 "
    "之後 怎麼辦 怎麼做 現在 分別"
)
_ASKING: Final = re.compile(f"({_HOLDS_ASKING})|{_ONLY_ASKS}")
"""What a Chinese question asks with; a word of the first kind holds such a character and stays whole."""
