"""Whatever a text is encoded in, it is read, and no character comes out that a database refuses."""

from __future__ import annotations

import contextlib
import random

import pytest

from core.errors import DocumentError
from core.loaders import load

SIMPLIFIED = (
    "员工出差应当提前填写申请单，并由部门负责人批准。报销凭证须在返回后十个工作日内提交至财务部门。\n灯具保修两年。"
)
TRADITIONAL = (
    "員工出差應當提前填寫申請單，並由部門負責人批准。報銷憑證須在返回後十個工作日內提交至財務部門。\n燈具保固兩年。"
)
JAPANESE = (
    "社員は出張の前に申請書を提出しなければなりません。\n領収書は十日以内に経理部へ送ってください。保証は二年です。"
)
KOREAN = "직원은 출장 전에 신청서를 제출해야 합니다. 영수증은 열흘 안에 보내 주십시오.\n램프의 보증은 이 년입니다."
FRENCH = "Les employés déposent leur demande à l’avance. La garantie d’une lampe est de deux années, pièces comprises."
GERMAN = "Für Ausfälle während der Gewährleistung haften wir; die Prüfung übernimmt das Büro in Köln. Größe: 20 °C."
SPANISH = "La garantía de la lámpara es de dos años. ¿Quién aprueba los viajes? El señor Muñoz, según el reglamento."
RUSSIAN = "Сотрудники подают заявление заранее. Гарантия на лампу составляет два года, включая все детали и работу."
ENGLISH = "Employees hand in their request ahead of time.\nA lamp is guaranteed for two years."
SHORT = "保修期为两年"

SAMPLES = [
    *((text, encoding) for encoding in ("utf-8", "utf-8-sig") for text in (SIMPLIFIED, JAPANESE, FRENCH, ENGLISH)),
    *((text, encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be") for text in (SIMPLIFIED, ENGLISH, GERMAN)),
    *((text, "utf-32") for text in (SIMPLIFIED, ENGLISH)),
    *((text, "utf-32-le") for text in (SIMPLIFIED, ENGLISH)),
    *((text, "gb18030") for text in (SIMPLIFIED, SHORT, f"{ENGLISH}\n{SIMPLIFIED}", f"编号,品名\n1,{SHORT}")),
    *((text, "gbk") for text in (SIMPLIFIED, SHORT)),
    *((text, "big5") for text in (TRADITIONAL, f"{ENGLISH}\n{TRADITIONAL}")),
    *((text, "cp932") for text in (JAPANESE, f"{ENGLISH}\n{JAPANESE}")),
    (JAPANESE, "euc_jp"),
    (JAPANESE, "iso2022_jp"),
    (KOREAN, "euc_kr"),
    *((text, "cp1252") for text in (FRENCH, GERMAN, SPANISH)),
    *((text, "latin-1") for text in (GERMAN, SPANISH)),
    (RUSSIAN, "cp1251"),
]


def body(data: bytes, name: str = "a.txt") -> str:
    return "\n".join(section.text for section in load(data, name, ocr=False, limit=10**6).sections)


@pytest.mark.parametrize(("text", "encoding"), SAMPLES)
def test_texts_are_read_in_their_encoding(text: str, encoding: str) -> None:
    """Fails when only UTF-8 is tried, or the guess weighs no frequencies."""
    assert body(text.encode(encoding)) == text


def test_there_are_samples_enough() -> None:
    assert len(SAMPLES) >= 30


def test_line_ends_of_old_systems_are_kept_apart() -> None:
    assert body(SIMPLIFIED.replace("\n", "\r\n").encode("gb18030")) == SIMPLIFIED


def test_html_names_its_encoding() -> None:
    page = f'<html><head><meta charset="big5"></head><body><p>{TRADITIONAL}</p></body></html>'
    assert "燈具保固兩年" in body(page.encode("big5"), "a.html")


def test_mixed_encodings_are_read_with_a_note() -> None:
    """Fails when one wrong byte turns the whole file into another encoding."""
    parsed = load((SIMPLIFIED * 3).encode() + b"\xff\xfe\xb1" + SIMPLIFIED.encode(), "a.txt", ocr=False, limit=10**6)
    assert parsed.sections[0].text.count("灯具保修两年") == 4
    assert parsed.notes == ("Some characters could not be read, because the file mixes encodings.",)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_text_cut_inside_a_character_is_still_read(cut: int) -> None:
    assert body(SIMPLIFIED.encode()[:-cut]).startswith("员工出差")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"one\x00two\x00 three\x01\x1b four", "a.txt"),
        (b'{"a": "x\\ud800y\\u0000z", "\\udc00": "k"}', "a.json"),
        (b'{"a": "x\\ud800y"}\n', "a.jsonl"),
        (b"a,b\nx\x00y,2\n", "a.csv"),
        (b'---\ntitle: "a\\0b"\n---\nx\n\n# h\x00h\n\ntext', "a.md"),
        (b"<p>a&#0;b&#xD800;c\x00d</p>", "a.html"),
        (b"{\\rtf1 \\u-10240? x\\u0? y}", "a.rtf"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nx\x00y\n", "a.srt"),
        ("a\ufeffb\ufffec\uffff".encode(), "a.txt"),
    ],
)
def test_no_text_ever_holds_what_databases_refuse(data: bytes, name: str) -> None:
    """Fails when `clean` no longer takes NUL, control characters and lone surrogates out of text, headings or title."""
    parsed = load(data, name, ocr=False, limit=10**6)
    texts = [parsed.title, *map(str, parsed.metadata.values()), *parsed.metadata]
    for section in parsed.sections:
        texts += [section.text, section.locator.label, *section.headings]
    for text in texts:
        text.encode()
        assert not set(text) & set("\x00\x01\x1b\ufeff\ufffe\uffff")


def test_noise_is_refused_or_read_but_never_an_error_of_ours() -> None:
    rng = random.Random(5)
    for _ in range(200):
        data = rng.randbytes(rng.randint(1, 400))
        for name in ("a.txt", "a.md", "a.csv", "a.html", "noname"):
            with contextlib.suppress(DocumentError):
                body(data, name).encode()
