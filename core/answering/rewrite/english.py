"""The rule of `core/answering/rewrite/` for English."""

from __future__ import annotations

import re
from typing import Final


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_QUESTION_WORDS: Final = _words(
    """
    what which who whom whose when where why how whether
    """
)
_AUXILIARIES: Final = _words(
    """
    is are was were be been being am do does did have has had can could may might must shall should will would
    isn't aren't don't doesn't can't won't
    """
)
_FUNCTION_WORDS: Final = _words(
    """
    a an the and or but so also then plus if of in on at to for from with without by about into over under up
    out off as than per via during after before between through until since while i me my mine we us our ours
    you your yours it its they them their theirs he him his she her hers this that these those there here one
    ones some any all each every both either neither no not yes only just even still yet too much many more most
    less least few little very really please else instead again anyway exactly actually same such other others
    another already ever long often soon far ago ok okay well let tell explain kind sort lot something anything
    someone somebody anyone anybody everyone everybody people thing things hi hello thanks thank kvasir
    """
)
_LIGHT_VERBS: Final = _words(
    """
    get gets got take takes need needs give gives given make makes use uses used know happen happens mean means
    find go goes come comes want wants like work works say says become becomes keep count counts hold holds
    apply applies
    """
)
_RELATIONAL: Final = _words(
    """
    deadline limit limits maximum minimum max min process procedure steps step cost costs price prices fee fees
    charge exception exceptions rule rules difference differences reason reasons requirement requirements
    condition conditions duration time times date amount number address contact form forms link advantage
    disadvantage alternative alternatives penalty consequence consequences option options detail details example
    examples default purpose approve approves approved approval decide decides pay pays paid sign signs ask asks
    request requests cancel change changes send sends contact check start starts end ends renew return expire
    expires required allowed possible mandatory available included enough submit report extend extended refuse
    refused refuses transfer responsible free first second third last next previous expensive cheap fast slow
    big heavy old new different permitted
    """
)
_NOT_ANAPHORIC: Final = _words(
    """
    year week month quarter morning afternoon evening time company bot handbook days
    """
)
_PRONOUN: Final = re.compile(
    r"\b(it|its|it's|they|them|their|theirs|they're|he|him|his|she|her|hers|the (?:same|latter|former|other)(?: one)?|"
    r"(?:the \w+|which|another|other) ones?|those|these|both of (?:them|those))\b",
    re.IGNORECASE,
)
_THIS: Final = re.compile(r"\b(this|that|these|those)\b(?:\s+([\w-]+))?", re.IGNORECASE)
_EXPLETIVE: Final = re.compile(
    r"\b(?:is|was|be|would|isn't) it (?:\w+ )?(?:possible|allowed|okay?|necessary|required|mandatory|permitted|true|"
    r"safe|forbidden|fine|legal|important|better|worth|enough)\b.+|\bit (?:take|cost)s?\b.* to \w+|\bit rains?\b",
    re.IGNORECASE,
)
_ABOUT: Final = re.compile(
    r"^(?:and |or |but |so |then |okay,? |ok,? )*(?:what|how) (?:about|of|if) (.+)$", re.IGNORECASE
)
_JOINED: Final = re.compile(r"^(?:and|or|but|so|also|then|plus|okay|ok)\b[, ]+(.+)$", re.IGNORECASE)
_PREPOSITIONS: Final = "for|in|on|at|with|without|from|to|by|during|after|before|as|outside|inside|within"
_FRAGMENT: Final = re.compile(
    rf"^(?:{_PREPOSITIONS}|(?:if|unless|when) (?!is\b|are\b|was\b|do\b|does\b|did\b|can\b|will\b|must\b|should\b|may\b|"
    r"has\b|have\b|would\b|could\b)) (?!which|what|whom|how)[^,]+$",
    re.IGNORECASE,
)
_LEANING_END: Final = re.compile(
    r"(?<!is )(?<!are )(?<!was )(?<!were )\b(?:there|too|as well|either|else|instead|otherwise|then|again|exactly)$",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
_ENTITY: Final = re.compile(r"(?<=[\w,] )(?:[A-Z][\w-]*|\w*\d[\w-]*)(?: (?:[A-Z][\w-]*|\d[\w-]*))*")
_MOST_TOPIC_WORDS: Final = 10
_FEW: Final = 3


def topic(question: str) -> str:
    """What a question is about: its words without the frame of the question."""
    found = list(dict.fromkeys(word for word in _WORD.findall(question) if _is_content(word)))
    said = [word for word in found if word.lower() not in _LIGHT_VERBS]
    return " ".join((said or found)[:_MOST_TOPIC_WORDS])


def completed(question: str, previous: str, about: str) -> str:
    """`question` with what it leaves out; `about` is the topic of `previous`."""
    text = question.rstrip(" ?!.")
    joined = _JOINED.match(text)
    fragment = _fragment(text, joined)
    if fragment:
        return _swapped(fragment, previous) or f"{_capital(fragment)}: {_without_mark(previous) or about}?"
    rest = joined[1] if joined else text
    pronoun = _pronoun(rest)
    if pronoun is not None:
        return f"{_capital(rest[:pronoun])} ({about}){rest[pronoun:]}?"
    own = [word for word in _WORD.findall(rest) if _is_content(word)]
    if _leans(rest, own) or (joined and len(own) <= _FEW):
        return f"{_capital(rest)} ({_missing(about, own)})?"
    return question


def _fragment(text: str, joined: re.Match[str] | None) -> str:
    """The new part of an elliptic question: «the Wren» of «And what about the Wren?»."""
    if found := _ABOUT.match(text):
        return found[1]
    rest = joined[1] if joined else text
    first = rest.split()[0].lower()
    if _FRAGMENT.match(rest) and not _has_verb_after(rest):
        return rest
    is_question = first in _QUESTION_WORDS or first in _AUXILIARIES or first in ("for", "since", "tell", "explain")
    return rest if joined and not is_question else ""


def _has_verb_after(rest: str) -> bool:
    """«For contractors» is a fragment; «In Berlin who may decide» is a question."""
    words = rest.lower().split()
    if words[0] in ("if", "unless", "when"):
        return any(word in _QUESTION_WORDS for word in words[1:])
    return any(word in _AUXILIARIES for word in words[2:])


def _swapped(fragment: str, previous: str) -> str:
    """`previous` with the fragment in the place of what it stands against; '' where that place is not clear."""
    if not previous:
        return ""
    body = _without_mark(previous)
    preposition = re.match(rf"^({_PREPOSITIONS}) (.+)$", fragment, re.IGNORECASE)
    thing = preposition[2] if preposition else fragment
    if thing.split()[0].lower() in ("if", "when", "unless", "i", "we", "you", "somebody", "someone", "people"):
        return ""
    new = _ENTITY.search(f"x {thing}") if not re.match(r"^(?:a|an|the|our|my) [a-z]", thing) else None
    new = new or re.search(r"(?:(?<=the )|(?<=our )|(?<=an )|(?<=a ))[A-Z].*", thing)
    if new:
        entities = list(_ENTITY.finditer(body))
        if len(entities) == 1:
            return f"{body[: entities[0].start()]}{new[0]}{body[entities[0].end() :]}?"
    place = preposition[1] if preposition else "(?:for|of|about|on|with)"
    phrase = re.search(rf" {place} (?:the |a |an |our |my |your )?(?![A-Z])[\w-]+(?: [a-z][\w-]+)?$", body)
    if phrase and not new:
        lead = phrase[0].split()[0]
        return f"{body[: phrase.start()]} {lead} {thing}?"
    return ""


def _pronoun(text: str) -> int | None:
    """Where a pronoun ends that stands for something said before; None where there is none."""
    for found in _PRONOUN.finditer(text):
        if found[0] == "IT" and not text.isupper():
            continue
        if found[0].lower() in ("those", "these"):
            continue
        if found[0].lower() in ("it", "it's") and _EXPLETIVE.search(text):
            continue
        if _bound_before(text[: found.start()]):
            continue
        return found.end()
    for found in _THIS.finditer(text):
        following = (found[2] or "").lower()
        if following in _NOT_ANAPHORIC or (found[1].lower() == "that" and _joins_a_clause(text, found.start())):
            continue
        if _bound_before(text[: found.start()]):
            continue
        return found.end(2) if following and _is_content(following) and following not in _LIGHT_VERBS else found.end(1)
    return None


def _bound_before(before: str) -> bool:
    """Whether the sentence itself names what a pronoun can stand for: «Did Ada sell her house?»."""
    if re.match(r"^(?:if|when|once|after|before|while) (?:a|an|my|somebody|someone|people|i) .*,", before, re.I):
        return True
    words = [word for word in _WORD.findall(before) if _is_content(word) and word.lower() not in _LIGHT_VERBS]
    return len(words) >= _FEW or any(word[0].isupper() for word in words)


def _joins_a_clause(text: str, at: int) -> bool:
    """«a rule that covers», and not «is that covered»: a noun stands before it."""
    before = _WORD.findall(text[:at])
    return bool(before) and _is_content(before[-1]) and before[-1].lower() not in _LIGHT_VERBS


def _leans(text: str, own: list[str]) -> bool:
    """Whether too little is left to search for: «Why?», «What is the deadline?», «Who approves?»."""
    if all(word.lower() in _RELATIONAL or word.lower() in _LIGHT_VERBS for word in own):
        return True
    return len(own) <= _FEW and bool(_LEANING_END.search(text) or text.lower().startswith("why so "))


def _missing(about: str, own: list[str]) -> str:
    said = {word.lower() for word in own}
    return " ".join(word for word in about.split() if word.lower() not in said) or about


def _is_content(word: str) -> bool:
    lower = word.lower().replace("’", "'")
    if word == "IT":
        return True
    return lower not in _FUNCTION_WORDS and lower not in _QUESTION_WORDS and lower not in _AUXILIARIES


def _without_mark(text: str) -> str:
    return text.rstrip(" ?!.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
