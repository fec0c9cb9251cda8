"""Follow-ups become searchable; questions that stand alone stay as they are."""

from __future__ import annotations

import asyncio
import time

import pytest

from core.analyzer import query_tokens
from core.answering.rewrite import standalone, standalone_by_engine
from core.types import PastTurn
from tests.fakes.engine import FakeEngine

pytestmark = pytest.mark.anyio


def past(question: str, *sources: str) -> tuple[PastTurn, ...]:
    return (PastTurn(question, question, "An answer.", True, sources),)


FOLLOW_UPS = [
    # (question before, follow-up, words that must be in it, words that must not)
    ("How long is the warranty of the KX-200?", "What does it weigh?", "KX-200 weigh", ""),
    ("How do I request a new laptop?", "Who approves it?", "laptop approves", ""),
    ("How many vacation days do I get?", "Can I carry them over to next year?", "vacation carry year", ""),
    ("How many vacation days do employees get?", "And for part-time employees?", "vacation part-time employees", ""),
    ("How long is the warranty on a Falcon?", "What about the Osprey?", "warranty Osprey", "Falcon"),
    ("What is the daily allowance for meals?", "And for hotels?", "daily allowance hotels", "meals"),
    ("Who is responsible for security?", "What about backups?", "responsible backups", "security"),
    ("What does the office in Lyon cost?", "And in Oslo?", "office cost Oslo", "Lyon"),
    ("How much notice must I give when I quit?", "Why?", "notice", ""),
    ("How do I file an expense report?", "What is the deadline?", "expense deadline", ""),
    ("How do I file an expense report?", "Until when?", "expense", ""),
    ("May I bring my dog to the office?", "Are there any exceptions?", "dog office exceptions", ""),
    ("What are the opening hours of the canteen?", "Is that also true on Fridays?", "canteen Fridays", ""),
    ("Which pension plans do we offer?", "How does the second one work?", "pension second", ""),
    ("What is the bonus for night shifts?", "Do interns get the same?", "bonus night interns", ""),
    ("Where do I park my bike?", "And if it is stolen?", "bike stolen", ""),
    ("How can I reset my password?", "Who can help me with that?", "password help", ""),
    ("公司的年假有多少天？", "没休完可以结转吗？", "年假 结转", ""),
    ("公司的年假有多少天？", "那兼职员工呢？", "年假 兼职", ""),
    ("全职员工有多少天年假？", "那兼职员工呢？", "年假 兼职", "全职"),
    ("上海的办公室在哪里？", "北京的呢？", "办公 北京", "上海"),
    ("怎么申请新的笔记本电脑？", "需要谁批准？", "笔记本 批准", ""),
    ("KX-200 的保修期是多久？", "它有多重？", "KX-200 重", ""),
    ("出差的餐费标准是多少？", "如果是国外呢？", "餐费 国外", ""),
    ("出差的餐费标准是多少？", "为什么？", "餐费", ""),
    ("新员工的试用期有多长？", "期间工资怎么算？那段时间他们有年假吗？", "试用 年假", ""),
    ("怎么连接公司的 VPN？", "这个多久换一次密码？", "VPN 密码", ""),
    ("报销需要哪些材料？", "要多久？", "报销 材料", ""),
    ("会议室怎么预订？", "要先付钱吗？", "会议室 付钱", ""),
    ("每个组都有打印机吗？", "一台要多少钱？", "打印机", ""),
    ("When does the new lab open?", "Why so late?", "lab open late", ""),
    ("How do I connect to the VPN?", "它收费吗？", "VPN 收费", ""),
]

STANDALONE = [
    ("How many vacation days do I get?", "Where is the coffee machine?"),
    ("How many vacation days do I get?", "How do I connect to the VPN?"),
    ("How many vacation days do I get?", "Who runs the IT department?"),
    ("How many vacation days do I get?", "Is it allowed to bring a dog to the office?"),
    ("How many vacation days do I get?", "How long does it take to ship a KX-200?"),
    ("How many vacation days do I get?", "Is there a rule that covers remote work from Spain?"),
    ("How many vacation days do I get?", "When is the company party this year?"),
    ("How many vacation days do I get?", "In which city is the headquarters?"),
    ("How many vacation days do I get?", "If a customer returns a buoy, can they get a refund?"),
    ("How many vacation days do I get?", "parental leave policy"),
    ("How many vacation days do I get?", "What is the dress code?"),
    ("How many vacation days do I get?", "For how many years do we keep invoices?"),
    ("How many vacation days do I get?", "Did Ada Lovelace publish her notes under an alias?"),
    ("How many vacation days do I get?", "What does connecting two routers to one line enable them to do?"),
    ("How many vacation days do I get?", "How many rows of combs are there?"),
    ("公司的年假有多少天？", "约翰·瓦勒普哪一年卖掉了他的农场？"),
    ("公司的年假有多少天？", "什么是月代？"),
    ("公司的年假有多少天？", "马其顿的首都是哪里？"),
    ("公司的年假有多少天？", "怎么连接 VPN？"),
    ("公司的年假有多少天？", "打印机在哪里？"),
    ("公司的年假有多少天？", "公司总部在哪个城市？"),
    ("公司的年假有多少天？", "应该怎么报销差旅费？"),
    ("公司的年假有多少天？", "如果电脑丢失了怎么办？"),
    ("公司的年假有多少天？", "其他语言的文档放在哪里？"),
    ("公司的年假有多少天？", "哪些人可以申请住房补贴？"),
    ("公司的年假有多少天？", "试用期为什么是三个月呢？"),
    ("公司的年假有多少天？", "那么多打印机里哪台是彩色的？"),
]


@pytest.mark.parametrize(("before", "question", "wanted", "unwanted"), FOLLOW_UPS)
async def test_a_follow_up_gets_what_it_leaves_out(before: str, question: str, wanted: str, unwanted: str) -> None:
    made = standalone(question, past(before))
    tokens = set(query_tokens(made))
    assert set(query_tokens(wanted)) <= tokens, made
    assert not unwanted or unwanted not in made
    assert "\n" not in made


@pytest.mark.parametrize(("before", "question"), STANDALONE)
async def test_a_change_of_topic_is_not_polluted(before: str, question: str) -> None:
    assert standalone(question, past(before)) == question


@pytest.mark.parametrize(("_", "question"), [*STANDALONE, *((first, second) for first, second, *_ in FOLLOW_UPS)])
async def test_a_first_question_is_never_touched(_: str, question: str) -> None:
    assert standalone(question, ()) == question


async def test_a_chain_of_follow_ups_keeps_its_topic() -> None:
    first = "How many vacation days do engineers get?"
    second = standalone("Can they be carried over?", past(first))
    third = standalone("Until when?", (*past(first), PastTurn("Can they be carried over?", second, "Yes.", True)))
    assert {"vacat", "carri"} <= set(query_tokens(third))
    for _ in range(20):
        third = standalone("Why?", (PastTurn("Why?", third, "So.", True),))
    assert len(third) < 200


async def test_the_cited_document_helps_where_nothing_else_does() -> None:
    history = (PastTurn("Why?", "Why?", "So.", True, ("handbook/parental-leave.md",)),)
    assert "parental-leave" in standalone("And how long?", history)


async def test_the_engine_s_words_are_taken_when_they_are_sane() -> None:
    engine = FakeEngine("Question: Who approves a new laptop?\n")
    history = past("How do I get a new laptop?")
    assert await standalone_by_engine(engine, "Who approves it?", history) == "Who approves a new laptop?"
    assert "Who approves it?" in engine.asked[0][0].turns[-1].text


@pytest.mark.parametrize(
    "said", ["", "  \n", "First line\nsecond line", "word " * 500, "???", "Sure! Here are three:\n1. a\n2. b"]
)
async def test_else_the_rule_decides(said: str) -> None:
    history = past("How do I get a new laptop?")
    by_rule = standalone("Who approves it?", history)
    assert await standalone_by_engine(FakeEngine(said), "Who approves it?", history) == by_rule


async def test_a_slow_or_broken_engine_costs_little_time() -> None:
    history = past("How do I get a new laptop?")
    by_rule = standalone("Who approves it?", history)
    slow = FakeEngine(pause=5)
    async with asyncio.timeout(2):
        assert await standalone_by_engine(slow, "Who approves it?", history, seconds=0.05) == by_rule
    assert slow.running == 0
    assert await standalone_by_engine(FakeEngine(fail_after=0), "Who approves it?", history) == by_rule


async def test_who_would_wait_for_the_engine_takes_the_rule() -> None:
    """So a question waits once, for its answer."""
    history = past("How do I get a new laptop?")
    busy = FakeEngine("Who approves a new laptop?", places=asyncio.Queue())
    busy.places.put_nowait(1)  # type: ignore[union-attr]  # it is above
    async with asyncio.timeout(2):
        said = await standalone_by_engine(busy, "Who approves it?", history)
    assert said == standalone("Who approves it?", history)
    assert busy.running == 0


async def test_no_history_asks_no_engine() -> None:
    engine = FakeEngine()
    assert await standalone_by_engine(engine, "Who approves it?", ()) == "Who approves it?"
    assert engine.asked == []


@pytest.mark.parametrize("piece", ["it ", "that ", "那", "它", "the one ", "and ", "what about ", "呢", "什么", "A1 "])
async def test_hostile_questions_take_linear_time(piece: str) -> None:
    begun = time.process_time()
    for size in (300, 100_000):
        text = piece * (size // len(piece))
        standalone(text, past(text))
        standalone("And it?", past(text))
    assert time.process_time() - begun < 5  # what takes the square takes minutes
