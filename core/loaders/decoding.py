"""Bytes to text: whichever encoding they are in, and never a character that a database refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from core.loaders.options import sentence

_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_UNWANTED_ASCII = tuple(char for char in map(chr, range(128)) if _UNWANTED.match(char))
_SAMPLE = 20_000
_Weigh: TypeAlias = Callable[[str], float]

# The commonest characters of running text. In the right encoding they are a third or more of all Han characters,
# in a wrong one hardly any.
_SIMPLIFIED = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运"
)
_TRADITIONAL = frozenset(
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系氣題活爾更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放強即像難且權思王象完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運"
)
_HANGUL = frozenset(
    "이다는을가의에고하지기니로를은한서사어자리도그나인들아시대있정해게수라주일부전여보적구장제상만으면것원과공화소경성비조생오"
    "연되물국유동안위무관세신금선입분방중산회모내미요학까았었습려된할및년월위문제마우트스실행체연계단양각발교식후설약재통결"
)
_PUNCTUATION = frozenset("，。、；：？！（）「」『』《》〈〉“”‘’…—·％　．／～－０１２３４５６７８９")
_LATIN_SIGNS = frozenset("‘’“”–—…•€£¥©®°·«»§±¿¡½¼²³ºª™")
_CANDIDATES: Final = ("gb18030", "big5hkscs", "cp932", "euc_jp", "euc_kr", "cp1252")


def decode(data: bytes, hint: str = "") -> tuple[str, tuple[str, ...]]:
    """The text with `\\n` line ends, and notes for the reader; `hint` is the encoding that the file names, if any."""
    text, notes = _decode(data, hint)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff"), notes


def clean(text: str) -> str:
    """The text without NUL, other control characters (tabs and line ends stay), non-characters and lone surrogates."""
    if text.isascii() and not any(map(text.__contains__, _UNWANTED_ASCII)):  # a fifth of what the search costs
        return text
    return _UNWANTED.sub("", text) if _UNWANTED.search(text) else text


def _decode(data: bytes, hint: str) -> tuple[str, tuple[str, ...]]:
    marked = _by_mark(data)
    if marked is not None:
        return marked
    if b"\x00" in data:
        wide = _wide(data)
        if wide is not None:
            return wide, ()
    if b"\x1b$" in data:
        shifted = _strictly(data, "iso2022_jp")
        if shifted is not None:
            return shifted, ()
    text = _strictly(data, "utf-8")
    if text is None and hint:
        text = _strictly(data, hint)
    if text is not None:
        return text, ()
    return _guess(data)


def _by_mark(data: bytes) -> tuple[str, tuple[str, ...]] | None:
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            text = _strictly(data, encoding)
            return (text, ()) if text is not None else _replaced(data, encoding)
    return None


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError, ValueError):
        return None


def _replaced(data: bytes, encoding: str) -> tuple[str, tuple[str, ...]]:
    return data.decode(encoding, "replace"), (sentence("note_encoding"),)


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: told by where the zero bytes are, or by how plausible the text is."""
    if len(data) % 4 == 0 and data[:4].count(0) >= 2:
        for encoding in ("utf-32-le", "utf-32-be"):
            text = _strictly(data, encoding)
            if text is not None:
                return text
    if len(data) % 2:
        data = data[:-1]
    found = [
        (score, text)
        for encoding in ("utf-16-le", "utf-16-be")
        if (text := _strictly(data, encoding)) is not None and (score := _plausible(text[:_SAMPLE])) > 0.7
    ]
    return max(found)[1] if found else None


def _plausible(text: str) -> float:
    """Share of characters that ordinary text is made of."""
    good = sum(
        " " <= char <= "~"
        or char in "\n\r\t"
        or "\u00a0" <= char <= "\u017f"
        or "\u0370" <= char <= "\u06ff"
        or "\u3000" <= char <= "\u30ff"
        or "\u4e00" <= char <= "\u9fa5"
        or "\uac00" <= char <= "\ud7a3"
        or "\u2010" <= char <= "\u2030"
        or "\uff01" <= char <= "\uff5e"
        for char in text
    )
    return good / max(1, len(text))


def _guess(data: bytes) -> tuple[str, tuple[str, ...]]:
    damaged = data.decode("utf-8", "replace")
    bad = damaged.count("\ufffd")
    if sum(char > "\x7f" for char in damaged) > 5 * bad:
        return damaged, (sentence("note_encoding"),)
    best, score = "", 0.0
    for encoding in _CANDIDATES:
        text = _strictly(data, encoding)
        if text is not None and (found := _likely(text[:_SAMPLE], encoding)) > score:
            best, score = text, found
    if score >= 0.3:
        return best, ()
    return _by_statistics(data, damaged, bad)


def _by_statistics(data: bytes, damaged: str, bad: int) -> tuple[str, tuple[str, ...]]:
    from charset_normalizer import from_bytes  # imported late: rare, and slow to import

    match = from_bytes(data[:65_536]).best()
    if match is not None and match.encoding != "ascii":
        text = _strictly(data, match.encoding)
        if text is not None:
            return text, ()
    if bad * 50 <= len(damaged):
        return damaged, (sentence("note_encoding"),)
    return _replaced(data, "cp1252")


def _likely(text: str, encoding: str) -> float:
    """How much the text, decoded so, looks like a text in a language of that encoding: 0..1."""
    foreign = [char for char in text if char > "\x7f"]
    if not foreign:
        return 1.0
    if encoding == "cp1252":
        return _likely_latin(text, foreign)
    return sum(map(_weigher(encoding), foreign)) / len(foreign)


def _weigher(encoding: str) -> _Weigh:
    if encoding in ("gb18030", "big5hkscs"):
        common = _SIMPLIFIED if encoding == "gb18030" else _TRADITIONAL
        return lambda char: (
            1.0 if char in common or char in _PUNCTUATION else 0.2 if "\u4e00" <= char <= "\u9fa5" else 0.0
        )
    if encoding in ("cp932", "euc_jp"):
        return lambda char: (
            1.0
            if "\u3041" <= char <= "\u30fe" or char in _PUNCTUATION
            else 0.4
            if char in _TRADITIONAL or char in _SIMPLIFIED
            else -0.5
            if "\uff61" <= char <= "\uff9f"
            else 0.0
        )
    return lambda char: 1.0 if char in _HANGUL else 0.4 if "\uac00" <= char <= "\ud7a3" or char in _PUNCTUATION else 0.0


def _likely_latin(text: str, foreign: list[str]) -> float:
    """Accented letters stand beside plain ones, and are few among them."""
    good = 0
    for before, char, after in _neighbours(text):
        if char in _LATIN_SIGNS or ("\u00c0" <= char <= "\u017f" and (before.isascii() or after.isascii())):
            good += 1
    return 0.9 * good / len(foreign) if len(foreign) * 2 < len(text) else 0.0


def _neighbours(text: str) -> Iterator[tuple[str, str, str]]:
    padded = f" {text} "
    for at in range(1, len(padded) - 1):
        if padded[at] > "\x7f":
            yield padded[at - 1], padded[at], padded[at + 1]
