"""The words of questions: what kind of thing they ask for, and which words say the same or next to nothing.

Data for `core/answering/sameness.py`; `python -m bench.curated` measures it.
"""

from __future__ import annotations

import re
from typing import Final

from core.analyzer import tokens


# ---------------------------------------------------------------- what is asked for
def _patterns(*pairs: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(pattern)) for name, pattern in pairs)


UNIT: Final = "(?:days?|weeks?|months?|years?|hours?|minutes?|seconds?)"
FEW: Final = "(?: (?!per\\b|times\\b|requests?\\b)[a-z]+){0,2}"
ENGLISH: Final = _patterns(
    # Of those that begin first in the question the first in this list holds.
    ("why", r"\bwhy\b|\bwhat(?:'s| is) the reason\b|\bfor what reason\b"),
    ("frequency", r"\bhow (?:often|frequently)\b|\bwhat(?:'s| is) the frequency of\b|\bin what intervals?\b"),
    ("duration", rf"\bhow (?:long\b|many\b(?={FEW} {UNIT}\b))|\bwhat(?:'s| is) the (?:length|duration) of\b"),
    ("duration", rf"\bwhat(?:'s| is) the number of\b(?={FEW} {UNIT}\b)"),
    ("cost", r"\bhow (?:much|expensive)\b(?=.*\b(?:cost|price)\b)|\bhow (?:much|expensive) (?:is|are)\b"),
    ("cost", r"\bwhat (?:does|do|will) (?:.*?)\bcost\b|\bwhat(?:'s| is| are) the .{0,40}\b(?:costs?|price|fees?)\b"),
    ("number", r"\bhow (?:many|much|high|large|big)\b|\bwhat(?:'s| is) the number of\b"),
    ("deadline", r"\b(?:by when|by what (?:time|day|date))\b|\bwhen\b(?=.*\b(?:deadline|due|latest)\b)"),
    ("deadline", r"\bwhat(?:'s| is) the (?:deadline|due date|latest date|last day)\b"),
    ("when", r"\b(?:until |since |from )?when\b|\b(?:at )?what (?:time|day|date)\b"),
    ("where", r"\bwhere\b|\bis there (?:a|any|some) place\b|\bin which (?:place|room|building)\b"),
    ("who", r"\bwho(?:m|se|'s| is)?\b|\bwhich (?:person|people|colleague)\b"),
    ("meaning", r"\bwhat (?:does|do|is|are)\b(?=.*\bmean(?:s|ing)?\b)"),
    ("way", r"\bwhat(?:'s| is| are) the (?:process|procedure|way|steps?|correct way|best way)(?: (?:for|of))?\b"),
    ("way", r"\bwhat (?:do|must|should|can) (?:i|we|you|one)(?: have to| need to)? do\b"),
    ("way", r"\bis there (?:a|any) way\b|\bhow (?:does|do) (?:that|this|it|i) (?:work|do that|do this|do it)$"),
    ("way", r"\bhow\b"),
    ("what", r"\b(?:what|which)\b"),
    ("allowed", r"^(?:can|may|could|might)\b|\b(?:am i|are we|is it) (?:allowed|permitted|possible|ok|okay)\b"),
    ("allowed", r"^(?:is|are)\b(?=.*\b(?:allowed|permitted|possible)\b)"),
    (
        "needed",
        r"^(?:must|do|does|is|are|am|should|shall)\b(?=.*\b(?:must|have to|has to|needs? to|required|obliged)\b)",
    ),
    ("needed", r"^must\b"),
    ("whether", r"^(?:is|are|am|was|were|do|does|did|has|have|had|will|would|should|shall)\b"),
)
CHINESE: Final = _patterns(
    ("why", "为什么|为何|为啥|什么原因|為什麼|為何"),
    ("meaning", "是?什么意思|代表什么|说明什么|什么含义|含义是什么|意思是什么|是什麼意思"),
    ("frequency", "(?:每隔?)?(?:多久|多长时间)(?=.{0,8}一次)|(?:频率|頻率)是(?:多少|什么)|隔多久"),
    ("cost", "是?多少钱|什么价格|价格是多少|(?<=费)用?是?多少|多少錢"),
    ("when", "(?:在|从|到)?(?:什么时候|什么时间|何时|几点钟?|几号|几月|哪天|哪一天|什麼時候)|何日"),
    ("duration", "有?多久|有?多长时间|有?多长|多少个?(?:天|日|周|月|年|小时|分钟)|几(?:天|周|个月|年|个?小时|分钟)"),
    ("what", "是(?:多少|几)$"),
    ("number", "有?多少[个次名位]?|有?几[个名位条台项张次]?(?![乎何率])|多大|多高|多重"),
    ("where", "在?(?:哪里|哪儿|哪里|什么地方|何处|哪裡|哪個地方|哪个地方)|在哪(?!个|些|种|一)"),
    ("who", "是?谁|哪位|是?誰|什么人|何人"),
    (
        "way",
        "(?:要|应该|应|该|需要|可以|能)?(?:怎么|如何|怎样|怎麼|怎樣)(?:才能|才可以|能|可以|去|来)?(?:(?:办理?|操作|做)$)?",
    ),
    ("way", "(?:步骤|流程|方法|办法)(?:是什么|是怎样的|有哪些|是?怎么样的)|要?办(?:理)?(?:什么|哪些)手续"),
    ("what", "(?:是|有|有些)?(?:什么|哪些|哪个|哪种|哪一个|啥|什麼|哪個)|有何"),
    ("allowed", "能不能|可不可以|能否|可否|是否(?:可以|能|允许)|(?:允许|可以|能够|准许|能)(?=.*(?:吗|么|嘛|否)?$)"),
    ("needed", "要不要|用不用|需不需要|是否(?:需要|要|必须)|(?:必须|需要|得|要)(?=.*(?:吗|么|嘛)$)"),
    ("whether", "是不是|有没有|会不会|是否|吗$|么$|嘛$|嗎$"),
)
EQUAL_KINDS: Final = {"meaning": "what"}
"""Of a thing with a name both are asked in either way."""

# ---------------------------------------------------------------- words
SAYING_THE_SAME: Final = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\b(?:does|do|is|are)(?:n't| not) (?:work|working)\b|\b(?:defective|out of order)\b", "broken"),
        (r"\b(?:turn(?:ing)?|switch(?:ing)?) on\b|\bactivat(?:e|ing)\b|\benabling\b", "enable"),
        (r"\b(?:turn(?:ing)?|switch(?:ing)?) off\b|\bdeactivat(?:e|ing)\b|\bdisabling\b", "disable"),
        (r"\b(?:sign(?:ing)?|log(?:ging)?)[ -](?:in|on)(?: to)?\b|\blogon\b", "login"),
        (r"\b(?:sign(?:ing)?|log(?:ging)?)[ -](?:out|off)\b", "logout"),
        (r"\b(?:two|2)[ -]?(?:factor|step) (?:authentication|verification|login)\b|\b2-?fa\b", "twofactorauth"),
        (r"\bhome office\b|\bwork(?:ing)? remotely\b|\bworking from home\b", "work from home"),
        (r"\bapply(?:ing)? for\b|\brequesting\b", "request"),
        (r"\b(?:vacation|holiday) days\b", "annual leave days"),
        (r"\bwi-?fi\b|\bwlan\b|\bwireless network\b", "wifi"),
        (r"\be-mail\b|\bmail account\b|\bemail account\b", "email"),
        (r"\bbicycles?\b", "bike"),
        (r"\bvisitors?\b", "guest"),
        (r"\bmax\.?(?=\s|$)", "maximum"),
        (r"\bmin\.?(?=\s|$)", "minimum"),
        (r"\b(?:cell|mobile) ?phone\b|\bmobile\b", "phone"),
        (r"\bpay ?slips?\b|\bpay ?stubs?\b", "payslip"),
        (r"\b(?:delet|remov|eras)(?:e|ing)\b", "delete"),
        (r"\bpurchas(?:e|ing)\b", "buy"),
        (r"\b(?:modify|edit)(?:ing)?\b", "change"),
        (r"\bguarantee\b", "warranty"),
        (r"\b(?:the|our|this|your) company(?:'s)?\b", "our"),
        (r"\b(?:per|as an) employee\b", ""),
        (r"\berror code\b", "error"),
        (r"\bsign(?:s|ed)? off\b", "approve"),
        (r"\b(?:call|reach|phone up|get in touch with)\b(?= (?:when|if|for|about|the|in)\b)", "contact"),
        (r"\b(csv|pdf|json|xml|excel|word) (?:file|format|document)\b", r"\1"),
        (r"\b(linux|windows|mac|macos) (?:machine|computer|pc|laptop)\b", r"\1"),
        (r"\bwhat's\b", "what is"),
        (r"\bwho's\b", "who is"),
        (r"\b(?:phone|telephone)\b", "phone"),
        ("星期|礼拜|禮拜", "周"),
        ("周日|周天", "周七"),
        ("笔记本电脑|手提电脑|笔电", "笔记本"),
        ("居家办公|远程办公", "在家办公"),
        ("打开|启用|开通|激活", "开启"),
        ("停用|禁用|关掉", "关闭"),
        ("添加|增加", "加入"),
        ("登陆|登入", "登录"),
        ("批准|核准|审核|审批", "审批"),
        ("口令", "密码"),
        ("会议厅", "会议室"),
        ("来宾|客人", "访客"),
        ("缴税|纳税", "交税"),
        ("导出成", "导出为"),
        ("纳税人识别号", "税号"),
        ("电话号码", "电话"),
        (r"(\d)版(?!本)", r"\1版本"),
        ("连(?![接续锁带同])", "连接"),
        ("联系谁", "找谁"),
        ("([a-z])(?:文件|系统|电脑|格式)", r"\1"),
        ("(?:错误|报错)代码", "错误"),
        ("多久(?=备份|更新|检查|清洗|维护)", "多久一次"),
    )
)
LIGHT: Final = frozenset(
    tokens("have do exactly currently actually really usually normally just still our there already anyway also")
)
"""Words that an English question may have or not."""
LIGHT_FOR: Final = {
    kind: frozenset(token for word in words.split() for token in tokens(word))
    for kind, words in {
        "where": "find see get look locate located place",
        "number": "get entitled exist",
        "duration": "get entitled take last",
        "frequency": "make made done performed happen",
        "cost": "cost costs price fee",
        "deadline": "deadline due submit submitted submission latest hand",
        "meaning": "mean meaning",
        "allowed": "allowed allow permitted permit possible ok okay",
        "needed": "must required obliged need",
        "way": "want need",
        "what": "use",
    }.items()
}
"""Words that say no more than what kind of thing is asked for."""
LIGHT_CHINESE: Final = re.compile(
    "我想知道|请告诉我|告诉我|我们|你们|咱们|我想要|我想|我要|想要|想|应该|一下|自己|的|地|得|了|着|吗|呢|吧|么|嘛|啊|呀|是|有|在|"
    "情况下|每(?=周)|到|把|被|将|给|为|成|要|会|能够|可以|能|需要|必须|允许|上|里|中|去|来|就|才|还|也|都|请|问|我|你|您|由|对|和|与|从|于|应|该|进行|时"
)
LIGHT_CHINESE_FOR: Final = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "way": "(?:手续|步骤|流程|方法|操作)(?=$|是|有)|一[台个]",
        "deadline": "截止时间|截止|最晚|之前|前|时间|时候",
        "where": "查看|查询|找到|找|看到|看|地方|地点",
        "what": "用的?|叫",
        "number": "个|台|位|数(?=$|是)|共",
        "duration": "每年|个|时间",
        "frequency": "一次|做|频率|进行",
        "allowed": "允许|使用|是否|可否|能够",
        "needed": "需要|必须|是否",
    }.items()
}
CHINESE_NUMBERS: Final = re.compile("[二三四五六七八九十两百千万零]")
NUMBERED: Final = re.compile(r"(?<![a-z])[a-z]*+[-_./]?\d++(?:[-_.,:/]?[a-z\d]++)*+", re.IGNORECASE)
NOT: Final = re.compile(r"\b(?:not|no|never|without|cannot|none|except|nor|neither)\b|n't\b")
NOT_CHINESE: Final = re.compile("不(?![同错过断仅限足])|没有?|无法|无需|无须|未(?!来)|别(?!名)|勿|除了|除外")
EITHER: Final = re.compile("(能|会|要|是|用|可|需|行|好)不\\1(?:以|要)?|有没有")
OTHERS: Final = re.compile(r"\b(?:his|her|hers|their|theirs|them|someone|somebody|else|another|other)\b")
TOWARDS: Final = re.compile(
    r"\b(to|into|from|than|before|after|over|under|by|without|instead of|via|against)\s+(?:the |a |an |my |our |your )*"
    r"([a-z\d][\w.+#-]*)"
)
TOWARDS_CHINESE: Final = re.compile(
    "(到|成|从|比|由|向|给|往|换为|转为|导出为|以前|之前|之后|以后)([a-z0-9.+#-]+|[\u4e00-\u9fff]{1,2})"
)
UNIT_ASKED: Final = re.compile(rf"\b{UNIT}\b")
DEADLINE: Final = re.compile("最晚|截止|之前")
OPPOSITES: Final = (
    # A word of the one kind in one question and of the other kind in the other tell them apart.
    (r"\b(?:my|mine|me|i)\b|我", r"\b(?:your|yours)\b|你|您"),
    (r"\b(?:can|could|may|able|allowed)\b|可以|能", r"\b(?:must|have to|has to|should|required)\b|必须|应该|需要|得"),
    (r"\b(?:was|were|did|had)\b", r"\b(?:is|are|does|do|has|will)\b"),
)
NOT_OPPOSED: Final = frozenset({"way", "where", "why", "duration", "frequency", "allowed", "needed"})
"""Kinds of questions in which these make no difference: «how can I», «how must I»."""
