"""Kvasir's own words, in English and Simplified Chinese."""

from __future__ import annotations

import locale
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from core.types import Language, Locator

CATALOGUE: Final[dict[str, tuple[str, str]]] = {
    # key: (English, 简体中文)
    "no_kb": (
        "There is no knowledge base named «{name}». «kvasir kb list» shows those there are.",
        "没有名为“{name}”的知识库。用 “kvasir kb list” 查看现有的知识库。",
    ),
    "keyword_only": (
        "Search works by keywords alone until the embedding model is there: {reason}",
        "嵌入模型就绪之前只能按关键词搜索：{reason}",
    ),
    # kvasir up
    "ready_at": ("Kvasir is ready: {url}", "Kvasir 已就绪：{url}"),
    "roles_ready": ("Kvasir is running: {roles}", "Kvasir 正在运行：{roles}"),
    "set_up_at": (
        "Open this link once to create the administrator: {url}",
        "请打开此链接创建管理员（仅可使用一次）：{url}",
    ),
    "stopping": ("Stopping…", "正在停止……"),
    "stopped": ("Kvasir has stopped.", "Kvasir 已停止。"),
    "sample_coming": (
        "Bringing in the sample knowledge base, so that there is something to ask…",
        "正在导入示例知识库，以便立即提问……",
    ),
    "sample_in": (
        "{count} sample documents are in the knowledge base «{kb}». A first question:",
        "已将 {count} 份示例文档导入知识库“{kb}”。先来提一个问题：",
    ),
    # accounts
    "user_exists": ("There is already a user named «{name}».", "已有名为“{name}”的用户。"),
    "no_user": ("There is no user named «{name}».", "没有名为“{name}”的用户。"),
    "last_owner": (
        "«{name}» is the only owner left; make somebody else an owner first.",
        "“{name}”是唯一的所有者，请先指定另一位所有者。",
    ),
    "bad_user_name": (
        "A user name has 1 to 100 letters, digits or the signs . _ - @ +",
        "用户名须为 1 到 100 个字母、汉字、数字或 . _ - @ + 符号。",
    ),
    "password_short": ("The password needs at least {least} characters.", "密码至少需要 {least} 个字符。"),
    "password_long": ("The password may have at most {most} characters.", "密码最多 {most} 个字符。"),
    "password_simple": (
        "The password is too easy to guess; do not use the name, or the same few characters again and again.",
        "密码太容易被猜到：不要使用用户名，也不要反复使用同样几个字符。",
    ),
    "login_refused": (
        "The name or the password is wrong, or there were too many tries; wait a minute before the next one.",
        "用户名或密码不正确，或尝试次数过多；请等一分钟再试。",
    ),
    "login_needed": ("Log in first.", "请先登录。"),
    "not_allowed": ("You may not do this; ask an administrator.", "您没有权限执行此操作，请联系管理员。"),
    "setup_link_used": (
        "This set-up link is not valid any more; start Kvasir again to get a new one.",
        "此初始化链接已失效；请重新启动 Kvasir 以获取新链接。",
    ),
    # the web page's guard
    "unknown_host": (
        "This address is not one Kvasir answers to; set web.public_url to the one people use.",
        "Kvasir 不响应此地址；请将 web.public_url 设为实际使用的地址。",
    ),
    "cross_site": (
        "This request came from another site and was refused; use Kvasir's own page, or an API key.",
        "此请求来自其他网站，已被拒绝；请使用 Kvasir 自己的页面或 API 密钥。",
    ),
    "body_too_large": (
        "The request is larger than is accepted; send less at a time.",
        "请求超过允许的大小，请减少每次发送的内容。",
    ),
    "body_too_slow": (
        "The request took too long to arrive; try again, or send less at a time.",
        "请求传输时间过长；请重试，或减少每次发送的内容。",
    ),
    "internal_error": (
        "Something went wrong inside Kvasir; the log says more under the number {id}.",
        "Kvasir 内部出错；请在日志中查找编号 {id} 了解详情。",
    ),
    "no_such_page": ("There is nothing at this address.", "此地址没有内容。"),
    "no_such_method": ("This address does not take such a request.", "此地址不支持该请求方式。"),
    "bad_request": ("The request cannot be read: {detail}", "无法读取请求：{detail}"),
    "too_many_questions": (
        "You may ask {most} questions a minute; wait a moment before the next one.",
        "每分钟最多可提 {most} 个问题，请稍候再试。",
    ),
    "question_empty": ("Write a question first.", "请先输入问题。"),
    "question_long": (
        "The question is longer than {most} characters; say it in fewer words.",
        "问题超过 {most} 个字符，请精简后再试。",
    ),
    "no_such_kb": (
        "There is no knowledge base named «{name}», or you may not use it.",
        "没有名为“{name}”的知识库，或您无权使用。",
    ),
    "no_such_document": ("There is no such document, or you may not see it.", "没有此文档，或您无权查看。"),
    "no_such_job": ("There is no such job, or you may not see it.", "没有此任务，或您无权查看。"),
    "no_such_conversation": (
        "There is no such conversation, or it is not yours.",
        "没有此对话，或它不属于您。",
    ),
    "not_multipart": (
        "Send the files as multipart/form-data, in the field «files».",
        "请以 multipart/form-data 格式在 “files” 字段中发送文件。",
    ),
    "multipart_broken": (
        "The upload cannot be read; send it again from the page.",
        "无法读取上传内容，请在页面上重新上传。",
    ),
    "too_many_files": (
        "Send at most {most} files at a time.",
        "每次最多上传 {most} 个文件。",
    ),
    "no_files": ("Choose at least one file.", "请至少选择一个文件。"),
    "client_gone": ("The connection was closed.", "连接已关闭。"),
    "port_taken": (
        "Port {port} on {host} is in use; stop what uses it, or set another with KVASIR_WEB__PORT.",
        "{host} 的端口 {port} 已被占用；请停止占用它的程序，或用 KVASIR_WEB__PORT 设置其他端口。",
    ),
    "cannot_listen": (
        "Kvasir cannot listen on {host}:{port} ({reason}); set KVASIR_WEB__HOST and KVASIR_WEB__PORT.",
        "Kvasir 无法监听 {host}:{port}（{reason}）；请设置 KVASIR_WEB__HOST 和 KVASIR_WEB__PORT。",
    ),
    "open_without_owner": (
        (
            "Kvasir listens on {host} only when there is an administrator; start it on 127.0.0.1 first and open the "
            "set-up link, or run «kvasir user add NAME --role owner»."
        ),
        (
            "只有存在管理员时 Kvasir 才会监听 {host}；请先在 127.0.0.1 上启动并打开初始化链接，或运行 "
            "“kvasir user add NAME --role owner”。"
        ),
    ),
    # API keys
    "key_needs_scope": ("An API key needs at least one scope.", "API 密钥至少需要一个权限范围。"),
    "no_key": ("There is no API key «{id}» in use.", "没有正在使用的 API 密钥“{id}”。"),
    # the openai engine
    "engine_no_connection": (
        "Cannot connect to the language model's server at {host}; is it running, and is KVASIR_OPENAI__BASE_URL right?",
        "无法连接语言模型服务器 {host}；请确认它正在运行，且 KVASIR_OPENAI__BASE_URL 设置正确。",
    ),
    "engine_key": (
        "The language model's server at {host} does not accept the key; set KVASIR_OPENAI__API_KEY.",
        "语言模型服务器 {host} 不接受该密钥；请设置 KVASIR_OPENAI__API_KEY。",
    ),
    "engine_no_model": (
        "The server at {host} has no model «{model}»; check KVASIR_OPENAI__MODEL and KVASIR_OPENAI__BASE_URL.",
        "服务器 {host} 上没有模型“{model}”；请检查 KVASIR_OPENAI__MODEL 和 KVASIR_OPENAI__BASE_URL。",
    ),
    "engine_context": (
        (
            "Question and passages are too long for the model «{model}»; lower KVASIR_OPENAI__CONTEXT_SIZE to what its "
            "server allows."
        ),
        "问题和段落超出了模型“{model}”的上下文长度；请把 KVASIR_OPENAI__CONTEXT_SIZE 调低到服务器允许的值。",
    ),
    "engine_busy": (
        "The language model's server at {host} is busy, or the quota is used up; try again later.",
        "语言模型服务器 {host} 暂时不再接受提问（繁忙或额度已用完），请稍后再试。",
    ),
    "engine_failed": (
        "The language model's server at {host} failed (status {status}: {said}); try again, or look into its log.",
        "语言模型服务器 {host} 出错（状态 {status}，信息：{said}）；请重试，或查看其日志。",
    ),
    "engine_moved": (
        (
            "The server at {host} points to {target}; set KVASIR_OPENAI__BASE_URL to the final address, since the key "
            "is not sent elsewhere."
        ),
        "服务器 {host} 指向了 {target}；请把 KVASIR_OPENAI__BASE_URL 设为最终地址，因为密钥不会发往别处。",
    ),
    "engine_garbage": (
        "The server at {host} does not answer like an OpenAI-compatible one; check KVASIR_OPENAI__BASE_URL.",
        "服务器 {host} 的回应不符合 OpenAI 兼容格式；请检查 KVASIR_OPENAI__BASE_URL。",
    ),
    "engine_broke": (
        "The connection to the language model at {host} broke before the answer was complete; ask again.",
        "与语言模型 {host} 的连接在回答完成之前中断，请重新提问。",
    ),
    "engine_slow": (
        (
            "The language model at {host} did not begin to answer within {seconds} s; ask again, or raise "
            "KVASIR_OPENAI__FIRST_TOKEN_TIMEOUT_SECONDS."
        ),
        (
            "语言模型 {host} 在 {seconds} 秒内没有开始回答；请重新提问，或调高 "
            "KVASIR_OPENAI__FIRST_TOKEN_TIMEOUT_SECONDS。"
        ),
    ),
    "engine_stalled": (
        "The language model at {host} stalled: nothing came for {seconds} s; ask again.",
        "语言模型 {host} 停滞：{seconds} 秒内没有任何输出，请重新提问。",
    ),
    "engine_empty": (
        "The language model at {host} gave an empty answer; ask again, or raise KVASIR_ANSWER__MAX_TOKENS.",
        "语言模型 {host} 给出了空回答；请重新提问，或调高 KVASIR_ANSWER__MAX_TOKENS。",
    ),
    "engine_filtered": (
        "The language model's provider refused to answer this (content filter); ask in other words.",
        "语言模型服务商拒绝回答（内容过滤），请换一种说法提问。",
    ),
    # answers
    "refusal": (
        "I found nothing about this in {kbs}. Try other words, or name the thing you mean.",
        "我在{kbs}中没有找到相关内容。请换一种说法，或说出您所指的具体事物。",
    ),
    "quoted_notice": (
        "Quoted from your documents; no language model is configured.",
        "摘自您的文档原文；未配置语言模型。",
    ),
    "repetition_notice": (
        "The language model began to repeat itself; the answer ends there.",
        "语言模型开始重复，回答到此为止。",
    ),
    "length_notice": (
        "The answer was cut at its longest length.",
        "回答已达最大长度，后面的内容被截断。",
    ),
    "answer_timeout": (
        "The answer took longer than {seconds} s and was given up; ask again.",
        "回答耗时超过 {seconds} 秒，已放弃，请重新提问。",
    ),
    "no_kb_chosen": (
        "There is no knowledge base yet; make one with «kvasir ingest FOLDER --kb NAME».",
        "还没有知识库；请用 “kvasir ingest 文件夹 --kb 名称” 建立一个。",
    ),
    "no_kb_of": (
        "There is no knowledge base named «{name}», or you may not use it; there are: {there}.",
        "没有名为“{name}”的知识库，或您无权使用；现有：{there}。",
    ),
    "no_such_answer": ("There is no such answer, or it is not yours.", "没有此回答，或它不属于您。"),
    "reason_long": ("A reason has at most {most} characters.", "理由最多 {most} 个字符。"),
    "rating_value": ("A rating is 1 or -1.", "评分只能是 1 或 -1。"),
    "title_length": ("A title has 1 to {most} characters.", "标题须为 1 到 {most} 个字符。"),
    "conversation_untitled": ("Conversation", "对话"),
    "word_sources": ("Sources", "来源"),
    "word_question": ("Question", "问题"),
    "word_answer": ("Answer", "回答"),
    # where in a document
    "place_page": ("page {first}", "第 {first} 页"),
    "place_pages": ("pages {first}–{last}", "第 {first}–{last} 页"),
    "place_slide": ("slide {first}", "第 {first} 张幻灯片"),
    "place_slides": ("slides {first}–{last}", "第 {first}–{last} 张幻灯片"),
    "place_sheet": ("sheet «{label}»", "工作表“{label}”"),
    "place_row": ("row {first}", "第 {first} 行"),
    "place_rows": ("rows {first}–{last}", "第 {first}–{last} 行"),
    "place_line": ("line {first}", "第 {first} 行"),
    "place_lines": ("lines {first}–{last}", "第 {first}–{last} 行"),
    "place_cell": ("cell {first}", "第 {first} 个单元格"),
    "place_cells": ("cells {first}–{last}", "第 {first}–{last} 个单元格"),
    "place_part": ("part «{label}»", "部分“{label}”"),
    "place_part_number": ("part {first}", "第 {first} 部分"),
    "place_part_numbers": ("parts {first}–{last}", "第 {first}–{last} 部分"),
    # chat
    "searching": ("Searching…", "正在搜索……"),
    "queued": ("Waiting; {ahead} questions are before yours.", "排队中，前面还有 {ahead} 个问题。"),
}


def say(key: str, language: Language, **values: object) -> str:
    """The text of `key` in `language`, its `{names}` filled in."""
    english, chinese = CATALOGUE[key]
    text = chinese if language == "zh" else english
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


_spoken: ContextVar[Language] = ContextVar("_spoken")


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Within it `tell` uses `language`: that of one request, command or message."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def tell(key: str, **values: object) -> str:
    """`say` in the language being spoken; outside `speaking`, English."""
    return say(key, _spoken.get("en"), **values)


def system_language() -> Language:
    """The language of this machine's user."""
    name = (
        os.environ.get("LC_ALL")
        or os.environ.get("LC_MESSAGES")
        or os.environ.get("LANG")
        or locale.getlocale()[0]
        or ""
    )
    return "zh" if name.lower().startswith("zh") else "en"


def text_language(text: str) -> Language:
    """The language a text is written in: `zh` where at least a fifth of its letters are Han characters."""
    letters = [char for char in text if char.isalpha()]
    han = sum("\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf" for char in letters)
    return "zh" if letters and han * 5 >= len(letters) else "en"


def place_of(locator: Locator, headings: Sequence[str], language: Language) -> str:
    """Where in its document a passage stands, e.g. «page 3, Leave › Sick days»; empty where nothing is known."""
    place = _place(locator, language)
    path = " › ".join(heading for heading in headings if heading)
    separator = "，" if language == "zh" else ", "
    return separator.join(part for part in (place, path) if part)


_NUMBERED: Final = {"sheet": "row", "rows": "row", "lines": "line", "part": "part_number"}


def _place(locator: Locator, language: Language) -> str:
    kind, first = locator.kind, locator.first
    numbered = _NUMBERED.get(kind, kind)
    named = ""
    if locator.label and kind in ("sheet", "part"):
        named = say(f"place_{kind}", language, label=locator.label)
    if not kind or first is None:
        return named
    last = locator.last if locator.last is not None else first
    key = f"place_{numbered}" if last == first else f"place_{numbered}s"
    numbers = say(key, language, first=first, last=last)
    return " ".join(part for part in (named, numbers) if part)
