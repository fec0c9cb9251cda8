"""The rule of `core/answering/rewrite/` for Chinese."""

from __future__ import annotations

import re
from typing import Final

_ASKING: Final = re.compile(
    "什么时候|为什么|是什么|有什么|什么|怎么样|怎么办|怎么|怎样|如何|多少|多久|多长时间|多长|多大|多远|哪里|哪儿|哪些|哪个|哪天|哪种|哪"
    "|谁|几[个天次点年月号位种条]?|是否|能否|能不能|可不可以|有没有|要不要|需不需要|会不会|是不是|何时|吗"
)
_FUNCTION: Final = re.compile(
    "请问|麻烦|我想知道|告诉我|你知道|一下|我们|咱们|你们|我|你|您|可以|能够|应该|必须|需要|该|吗|呢|吧|啊|呀|嘛|了|的|地|先"
    # One-character words, where they are no part of a longer one: 会 but not 会议 or 机会.
    "|(?<![机社大协工年开])会(?![议计员费客展籍所签])|(?<![费使信试作应专])用(?![户品途量电水餐车印])"
    "|(?<![功性智可])能(?![力源量耗])|(?<![未原将回])来(?![源访宾电自])|(?<![所具持拥])有(?![效关限机害])"
    "|(?<![需重主纪摘])要(?![求点素])|(?<![现存潜])在(?![线职])|对(?![账象比接照])|得(?!分)|给(?!料)|比(?![例较赛特])"
    "|以(?![前后上下内外及])|去(?!年)|按(?![钮时月])|还(?!款)|都(?!市)|从(?![业事])|为(?!期)|不(?![限良锈动])|由(?!于)"
    "|是|和|与|跟|或者?|也|就|才|再|又|把|被|让|到|于|最多|最少|最晚|最早|最|很|多(?![媒语])|少"
    "|一般|通常|大概|具体|一共|总共|到底|究竟|目前|现在|一个|一次|一|每|个|些|种|次|那么|那|如果|要是|假如|的话|还是|没有|没|只"
)
_EDGES: Final = re.compile(rf"^(?:{_FUNCTION.pattern})+|(?:{_FUNCTION.pattern})+$")
_GENERIC: Final = re.compile(
    "申请|审批|批准|批|同意|签字|签|结转|办理|办|退还|退|取消|修改|改|提前|延长|延期|提交|交|支付|付|计算|算|发放|发|领取|领|查看|查|看"
    "|使用|开通|关闭|续|更新|换|例外|限制|条件|要求|流程|手续|材料|期限|时间|费用|价格|钱|贵|区别|原因|好处|坏处|步骤|上限|下限|标准"
    "|地址|电话|邮箱|联系|通知|证明|找|拿|做|处理|负责|决定|规定|结果|后果|影响|超过|超出|超|不够|够|支持|收费|免费|说|写|其他|其它|别的"
    "|方式|方法|办法|情况|天|元|块|小时|分钟|年|月|周|星期|日|位|人|名"
)
_PRONOUN: Final = re.compile(
    "(?<!其)它们?|(?<![其吉结])他(?!人)们?|她们?|(?<![马耳尤极何])其(?![他它实中次余间])"
    "|这(?!家公司|个月|个星期|周|年|几[天年月])[些个种项款台份条类样里边次]?"
    "|那(?!么)[些个种项款台份条类样里边次](?!呢)"
    "|[一两几][个位台份条款项](?=能|要|可|会|是|得|应|最|多少|有|$)"
    "|上述|上面|前面(?:说的)?|刚才(?:说的)?|刚刚|前者|后者|两者|二者|同样"
    "|该(?=项|产品|设备|型号|制度|规定|政策|流程|功能|文件|文档|系统|服务|计划|版本|问题|选项|设置|命令|套餐|仪器|部门|岗位|合同|条款)"
)
_LEADING: Final = re.compile("^(?:那么|那|还有|另外|以及|然后|对了|好的|嗯)[，, ]*")
_IF: Final = re.compile("^(?:如果是?|要是|假如|换成|换了|若是?|对于|关于|至于)[，, ]*")
_MODAL: Final = re.compile(
    "^(?:没|不|对|可以|能|会|要|需要|必须|得|应该|有|是|最[多少晚早]|一般|通常|由谁|谁|怎么|如何|什么时候|多久|多少|几|为什么)"
)
_HAN_OR_WORD: Final = re.compile(r"[\u3400-\u9fff]|[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")
_MOST_TOPIC: Final = 28
_FEW: Final = 3


def topic(question: str) -> str:
    """What a question is about: it without the words of asking."""
    text = _ASKING.sub(" ", _PRONOUN.sub(" ", question))
    pieces = re.split(r"[\s的了呢吗，。？！、；：（）()?,!“”\"]+", text)
    parts = [part for part in (_EDGES.sub("", piece) for piece in pieces) if len(part) > 1]
    kept: list[str] = []
    for part in dict.fromkeys(parts):
        if sum(map(len, kept)) + len(part) <= _MOST_TOPIC:
            kept.append(part)
    return " ".join(kept)


def completed(question: str, previous: str, about: str) -> str:
    """`question` with what it leaves out; `about` is the topic of `previous`."""
    text = question.rstrip(" ？?！!。.")
    rest = _LEADING.sub("", text)
    elliptic = _elliptic(rest)
    if elliptic is not None:
        body = _IF.sub("", elliptic)
        if not body:
            return f"{about}？"
        return _swapped(body, previous) or f"{body}，{previous.rstrip(' ？?') or about}？"
    pronoun = _PRONOUN.search(rest)
    if pronoun and not _bound_before(rest[: pronoun.start()]):
        return f"{rest[: pronoun.end()]}（{about}）{rest[pronoun.end() :]}？"
    if _leans(rest, begun=rest != text):
        return f"{rest}（{about}）？"
    return question


def _elliptic(text: str) -> str | None:
    """The new part of «那宁波呢»; None where the question is whole."""
    if not text.endswith("呢"):
        return None
    body = text[:-1].rstrip("，, ")
    return None if _ASKING.search(body) else body


def _bound_before(before: str) -> bool:
    """Whether the sentence itself names what a pronoun can stand for."""
    clause = re.split("[？?。！!]", before)[-1]
    return _weight(_FUNCTION.sub("", _ASKING.sub("", clause))) > 2 * _FEW


def _swapped(body: str, previous: str) -> str:
    """`previous` with the new part in the place of what it stands against; '' where that place is not clear."""
    if not previous:
        return ""
    if body.endswith("的") and (found := re.match(r"^[^的，？ ]{1,10}的", previous)):
        return body + previous[found.end() :]
    for length in range(min(4, len(body) - 1), 1, -1):
        at = previous.find(body[-length:])
        if at >= 0:
            begin = max(previous.rfind(sign, 0, at) for sign in ("的", "，", " ", "是", "在", "对")) + 1
            return previous[:begin] + body + previous[at + length :]
    return ""


def _leans(text: str, *, begun: bool) -> bool:
    """Whether too little is left to search for: «需要多久？», «谁来批准？»; `begun`: it began with «那» or the like."""
    if re.match("^(?:什么是|什么叫|谁是)", text):
        return False
    weight = _weight(_GENERIC.sub("", _FUNCTION.sub("", _ASKING.sub("", _IF.sub("", text)))))
    if weight <= 1:
        return True
    if begun:
        return weight <= 2 * _FEW
    return weight < _FEW and bool(_MODAL.match(text))


def _weight(text: str) -> int:
    """How much a text says: its Han characters, a word in letters counting as several."""
    return sum(1 if "\u3400" <= piece[0] <= "\u9fff" else _FEW for piece in _HAN_OR_WORD.findall(text))
