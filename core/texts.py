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
    "keyword_only": (
        "Search works by keywords alone until the embedding model is there: {reason}",
        "嵌入模型就绪之前只能按关键词搜索：{reason}",
    ),
    # the console: figures, conversations, what is kept about a person
    "no_such_zone": (
        "There is no time zone «{name}»; write it like Europe/Paris.",
        "没有名为“{name}”的时区；请写成 Asia/Shanghai 这样的形式。",
    ),
    "period_order": ("The time must begin before it ends.", "时间段的开始必须早于结束。"),
    "period_long": ("The time may be {days} days long at most.", "时间段最长为 {days} 天。"),
    "files_of_threads": ("Files sent in threads", "会话中发送的文件"),
    "part_database": ("Database", "数据库"),
    "part_store": ("Index", "索引"),
    "part_engine": ("Answers", "回答引擎"),
    "part_embedder": ("Embedding model", "嵌入模型"),
    "part_queue": ("Jobs", "任务队列"),
    "part_schedules": ("Schedules", "定时任务"),
    "part_works": ("It works ({name}).", "工作正常（{name}）。"),
    "part_slow": ("It did not answer within {seconds} seconds.", "{seconds} 秒内没有响应。"),
    "part_store_empty": ("Ready ({name}); nothing is indexed yet.", "就绪（{name}）；还没有索引任何内容。"),
    "part_embedder_off": ("Off: search works by keywords alone.", "已关闭：只能按关键词搜索。"),
    "part_embedder_loading": (
        "It is being made ready; until then search works by keywords alone.",
        "正在准备；就绪之前只能按关键词搜索。",
    ),
    "part_queue_idle": ("Nothing waits.", "没有等待中的任务。"),
    "part_queue_busy": ("{running} running, {queued} waiting.", "{running} 个进行中，{queued} 个等待中。"),
    "part_queue_failed": ("{failed} failed in the last 24 hours.", "最近 24 小时有 {failed} 个任务失败。"),
    "part_queue_stuck": (
        "{queued} jobs wait and nobody takes them; is «kvasir up» running, or «kvasir up jobs»?",
        "有 {queued} 个任务在等待却无人处理；“kvasir up”或“kvasir up jobs”在运行吗？",
    ),
    "part_schedules_led": ("{holder} starts what is due.", "由 {holder} 按时启动。"),
    "part_schedules_nobody": (
        "Nobody starts what is due; is «kvasir up» running, or «kvasir up jobs»?",
        "没有进程启动到期的任务；“kvasir up”或“kvasir up jobs”在运行吗？",
    ),
    "part_platform_connected": ("Connected.", "已连接。"),
    "part_platform_connecting": ("Connecting…", "正在连接…"),
    "part_platform_waiting": (
        "It has tokens, and no process runs it yet; is «kvasir up» running, or «kvasir up bots»?",
        "令牌已设置，但还没有进程运行它；“kvasir up”或“kvasir up bots”在运行吗？",
    ),
    "part_platform_refused": ("It refuses us; look at its tokens.", "平台拒绝了连接；请检查令牌。"),
    "part_platform_silent": ("Its process is not heard of any more.", "运行它的进程已没有消息。"),
    "part_platform_off": ("Switched off.", "已关闭。"),
    "no_such_record": ("There is no such conversation, or you may not read it.", "没有这个会话，或您无权查看。"),
    "no_person_kept": ("Nothing is kept about «{person}».", "没有保存“{person}”的任何数据。"),
    "person_exported": ("Wrote all that is kept about {person} to {file}.", "已将 {person} 的全部数据写入 {file}。"),
    "person_erase_confirm": (
        (
            "Erase all that is kept about {person}: {answers} answers in {conversations} conversations, "
            "{ratings} ratings, {grants} permissions? This cannot be undone."
        ),
        (
            "确定要抹除 {person} 的全部数据吗（{conversations} 个会话中的 {answers} 个回答、{ratings} 个评价、"
            "{grants} 项权限）？此操作无法撤销。"
        ),
    ),
    "person_erased": (
        "Erased {answers} answers, {conversations} conversations, {ratings} ratings and {files} files of {person}.",
        "已抹除 {person} 的 {answers} 个回答、{conversations} 个会话、{ratings} 个评价和 {files} 个文件。",
    ),
    "retention_days": (
        "Say how many days are kept: a whole number from 1 to 36500.",
        "请指定保留天数：1 到 36500 之间的整数。",
    ),
    "retention_done": (
        "Deleted {answers} answers and {conversations} conversations that were older than {days} days.",
        "已删除超过 {days} 天的 {answers} 个回答和 {conversations} 个会话。",
    ),
    # the local store
    "store_io": (
        "The index {path} cannot be read or written ({reason}); check the disk and the folder's permissions.",
        "无法读写索引文件 {path}（{reason}）；请检查磁盘和文件夹权限。",
    ),
    "store_full": (
        "There is no space left for the index {path}; free some and try again, nothing stored before is lost.",
        "索引文件 {path} 所在磁盘已满；请腾出空间后重试，已存的内容没有丢失。",
    ),
    "store_read_only": (
        "The index {path} is read-only; give Kvasir the right to write it.",
        "索引文件 {path} 为只读；请授予 Kvasir 写入权限。",
    ),
    "store_busy": (
        "Another process has kept the index {path} locked for {seconds} seconds; try again when it is done.",
        "索引文件 {path} 被另一进程锁定超过 {seconds} 秒；请待其完成后重试。",
    ),
    "store_damaged": (
        (
            "The index {path} is damaged; restore it with «kvasir restore», "
            "or move the file away and start Kvasir to build it again from the originals."
        ),
        "索引文件 {path} 已损坏；请用 “kvasir restore” 恢复，或移走该文件后启动 Kvasir，由原件重建。",
    ),
    "store_newer": (
        "The index {path} was made by a newer Kvasir; update Kvasir.",
        "索引文件 {path} 由更新版本的 Kvasir 创建；请升级 Kvasir。",
    ),
    "store_foreign": (
        "{path} is not an index of Kvasir; move the file away or choose another data directory.",
        "{path} 不是 Kvasir 的索引文件；请移走该文件或另选数据目录。",
    ),
    "store_no_generation": (
        "The index to write to is gone; run «kvasir kb reindex» for this knowledge base.",
        "要写入的索引已不存在；请对该知识库运行 “kvasir kb reindex”。",
    ),
    "store_wrong_vectors": (
        (
            "The index holds vectors of {expected} numbers, but these have {found}; "
            "run «kvasir kb reindex» after a change of the embedder."
        ),
        "该索引的向量维度为 {expected}，收到的却是 {found}；更换嵌入模型后请运行 “kvasir kb reindex”。",
    ),
    "pgvector_needs_postgres": (
        "The store «pgvector» needs a PostgreSQL: set KVASIR_PGVECTOR__URL, or KVASIR_DATABASE__URL.",
        "存储 “pgvector” 需要 PostgreSQL：请设置 KVASIR_PGVECTOR__URL 或 KVASIR_DATABASE__URL。",
    ),
    "pgvector_missing": (
        (
            "PostgreSQL at {where} has no pgvector 0.7 or newer ({reason}); install that extension there, and let "
            "Kvasir's role create it, or create it yourself with CREATE EXTENSION vector."
        ),
        (
            "{where} 的 PostgreSQL 没有 pgvector 0.7 或更高版本（{reason}）；请在服务器上安装该扩展，"
            "并允许 Kvasir 的角色创建，或自行执行 CREATE EXTENSION vector。"
        ),
    ),
    "pgvector_full": (
        "There is no space left at {where}; nothing stored before is lost.",
        "{where} 的磁盘已满；已存的内容没有丢失。",
    ),
    "pgvector_unreachable": (
        "The index in PostgreSQL at {where} cannot be reached or used: {reason}.",
        "无法访问或使用 {where} 上 PostgreSQL 中的索引：{reason}。",
    ),
    "pgvector_check": ("Server", "服务器"),
    "pgvector_check_good": (
        "PostgreSQL {version} answers.",
        "PostgreSQL {version} 有响应。",
    ),
    "pgvector_check_version": ("Version {version}.", "版本 {version}。"),
    "pgvector_check_old": (
        "Version 0.7 or newer must be installed on that server; found: {version}.",
        "服务器上须安装 0.7 或更高版本；当前：{version}。",
    ),
    "pgvector_check_use": ("Store", "存储"),
    "pgvector_check_used": ("New knowledge bases begin there.", "新建的知识库存放在这里。"),
    "pgvector_check_unused": (
        "New knowledge bases begin elsewhere; KVASIR_STORE__KIND=pgvector changes that, «kvasir kb move» moves others.",
        "新建的知识库存放在别处；可设置 KVASIR_STORE__KIND=pgvector，已有的可用 “kvasir kb move” 迁入。",
    ),
    "lancedb_slow": (
        "The LanceDB index at {uri} has not answered within {seconds} seconds; look at its disk or network.",
        "{uri} 的 LanceDB 索引在 {seconds} 秒内没有响应；请检查磁盘或网络。",
    ),
    "lancedb_failed": (
        "The LanceDB index at {uri} cannot be read or written: {reason}.",
        "无法读写 {uri} 的 LanceDB 索引：{reason}。",
    ),
    "lancedb_check": ("Place", "位置"),
    "lancedb_check_good": (
        "{uri} can be read: {count} indexes (LanceDB {version}).",
        "{uri} 可以读取：共 {count} 个索引（LanceDB {version}）。",
    ),
    "milvus_slow": (
        "Milvus at {uri} has not answered within {seconds} seconds; look whether it is overloaded.",
        "{uri} 的 Milvus 在 {seconds} 秒内没有响应；请检查其负载。",
    ),
    "milvus_unreachable": (
        "There is no Milvus at {uri}; start it, or correct the section «milvus» of the settings.",
        "{uri} 上没有 Milvus；请启动它，或修改设置中的 “milvus” 部分。",
    ),
    "milvus_refused": (
        "Milvus at {uri} refuses Kvasir; correct KVASIR_MILVUS__TOKEN, or its rights there.",
        "{uri} 的 Milvus 拒绝了 Kvasir；请修改 KVASIR_MILVUS__TOKEN 或其权限。",
    ),
    "milvus_failed": (
        "Milvus at {uri} could not do what was asked: {reason}",
        "{uri} 的 Milvus 无法完成请求：{reason}",
    ),
    "milvus_lite_in_use": (
        (
            "Another process uses {path}, and Milvus Lite lets in one at a time: stop it, or run a Milvus server and "
            "give its address as KVASIR_MILVUS__URI."
        ),
        (
            "另一个进程正在使用 {path}，而 Milvus Lite 只允许一个进程：请停止它，"
            "或运行 Milvus 服务器并将其地址设为 KVASIR_MILVUS__URI。"
        ),
    ),
    "milvus_lite_path": (
        "KVASIR_MILVUS__URI is neither an http(s) address nor a path that ends in «.db»: {uri}.",
        "KVASIR_MILVUS__URI 既不是 http(s) 地址，也不是以 “.db” 结尾的路径：{uri}。",
    ),
    "milvus_not_stored": (
        "Milvus at {uri} has not stored everything within {seconds} seconds; try again ({reason}).",
        "{uri} 的 Milvus 未能在 {seconds} 秒内全部存储；请重试（{reason}）。",
    ),
    "milvus_check": ("Server", "服务器"),
    "milvus_check_good": ("{version} answers at {uri}.", "{uri} 上的 {version} 有响应。"),
    "milvus_check_old": (
        "It is version {version}, and {needed} is needed; update the server.",
        "其版本是 {version}，至少需要 {needed}；请升级服务器。",
    ),
    "milvus_check_made": ("Indexes", "索引"),
    "milvus_check_counted": ("{count} there.", "共 {count} 个。"),
    "store_check_none": (
        "{path} is not there yet; it is made when it is first used.",
        "{path} 尚不存在；首次使用时会创建。",
    ),
    "store_check_use": ("Store", "存储"),
    "store_check_used": ("New knowledge bases begin there.", "新建的知识库存放在这里。"),
    "store_check_unused": (
        "New knowledge bases begin elsewhere; KVASIR_STORE__KIND={kind} changes that, «kvasir kb move» moves others.",
        "新建的知识库存放在别处；可设置 KVASIR_STORE__KIND={kind}，已有的可用 “kvasir kb move” 迁入。",
    ),
    "store_not_open": (
        "The store «{store}», which holds what is asked for, cannot be used: {reason}",
        "存放所需内容的存储“{store}”无法使用：{reason}",
    ),
    "move_restless": (
        (
            "The documents of «{kb}» keep changing, so that it was not moved yet; what was copied stays. Run it again "
            "when they have come in, with «kvasir up» for those that a stopped process left."
        ),
        (
            "“{kb}”的文档一直在变化，尚未完成迁移；已复制的内容会保留。请在文档处理完后重试；"
            "若有中断进程遗留的文档，请先运行 “kvasir up”。"
        ),
    ),
    "move_differs": (
        "«{kb}» was not moved: what «{store}» gives back is not what it was given ({what}). It answers as before.",
        "“{kb}”未迁移：“{store}”返回的内容与写入的不一致（{what}）。知识库仍照常回答。",
    ),
    "move_count": ("documents and chunks", "文档与分块"),
    "move_sample": ("a search for a chunk of «{name}»", "对“{name}”中一个分块的搜索"),
    "kb_moved": (
        "{kb}: {documents} documents, {chunks} chunks, now in «{store}».",
        "{kb}：{documents} 份文档，{chunks} 个分块，现存于“{store}”。",
    ),
    "kb_there": ("{kb} is in «{store}» already.", "{kb} 已在“{store}”中。"),
    "kb_no_index": ("{kb} has no index yet; there is nothing to move.", "{kb} 还没有索引，无需迁移。"),
    "originals_bad_url": (
        "originals.url is s3://BUCKET/PREFIX or an absolute folder.",
        "originals.url 应为 s3://存储桶/前缀，或绝对路径的文件夹。",
    ),
    "s3_bad_url": (
        "The settings of «originals» cannot be used ({reason}).",
        "“originals” 的设置无法使用（{reason}）。",
    ),
    "s3_no_bucket": (
        "There is no bucket at {url}; make it first, or correct originals.url.",
        "{url} 处没有存储桶；请先创建，或更正 originals.url。",
    ),
    "s3_refused": (
        "The originals at {url} are refused to us; check originals.access_key and what it may do.",
        "无权访问 {url} 处的原件；请检查 originals.access_key 及其权限。",
    ),
    "s3_unreachable": (
        "The originals at {url} cannot be reached now: {reason}",
        "目前无法访问 {url} 处的原件：{reason}",
    ),
    "s3_other_bytes": ("other bytes come back than were put there.", "取回的内容与写入的不一致。"),
    "s3_lost": ("The original {name} is listed at {url}, and not there.", "{url} 列出了原件 {name}，但实际并不存在。"),
    "originals_in_folder": (
        "The originals are in the folder {folder}; set originals.url to s3://BUCKET/PREFIX first.",
        "原件位于文件夹 {folder} 中；请先将 originals.url 设为 s3://存储桶/前缀。",
    ),
    "originals_copied": ("{count} originals are in {place}.", "{count} 份原件已位于 {place}。"),
    "doctor_originals": ("Originals", "原件"),
    "doctor_originals_s3": ("{place} can be written and read.", "{place} 可读写。"),
    "doctor_originals_left": (
        "{place} can be written and read; {count} lie in {folder} still: kvasir originals push",
        "{place} 可读写；仍有 {count} 份在 {folder} 中：kvasir originals push",
    ),
    "doctor_originals_missing": (
        (
            "{place}: {missing} of the newest {count} are not there; these documents cannot be read anew. Copy there "
            "what the data directory of each machine has in «blobs»: machines that share a database need one folder or "
            "bucket together (KVASIR_ORIGINALS__URL)."
        ),
        (
            "{place}：最新的 {count} 份中缺少 {missing} 份，这些文档无法重新读取。请将每台机器数据目录中“blobs”里的内容"
            "复制到该处：共享同一数据库的机器须共用一个文件夹或存储桶（KVASIR_ORIGINALS__URL）。"
        ),
    ),
    "move_stopped": (
        "«{kb}» was not moved: its job was cancelled. It answers as before.",
        "“{kb}”未迁移：任务已取消。知识库仍照常回答。",
    ),
    "move_not_set_up": (
        "The store «{store}» is not set up here; there are: {names}.",
        "此处未配置存储“{store}”；可用的有：{names}。",
    ),
    "move_usage": ("Give the name of a knowledge base, or --all.", "请给出知识库名称，或使用 --all。"),
    "store_bad_document": (
        "The document «{name}» cannot be stored: {reason}.",
        "无法存储文档“{name}”：{reason}。",
    ),
    "store_bad_value": (
        "A text or number given cannot be stored or searched for; leave out broken characters and huge numbers.",
        "给出的文本或数字无法存储或搜索；请去掉无效字符和过大的数字。",
    ),
    "weaviate_slow": (
        "The Weaviate server at {url} has not answered within {seconds} seconds; look whether it is overloaded.",
        "Weaviate 服务器 {url} 在 {seconds} 秒内没有响应；请检查其负载。",
    ),
    "weaviate_unreachable": (
        "There is no Weaviate server at {url}; start it, or correct the section «weaviate» of the settings.",
        "{url} 上没有 Weaviate 服务器；请启动它，或修改设置中的 “weaviate” 部分。",
    ),
    "weaviate_refused": (
        "The Weaviate server at {url} refuses Kvasir's key; correct KVASIR_WEAVIATE__API_KEY, or its rights there.",
        "Weaviate 服务器 {url} 拒绝了 Kvasir 的密钥；请修改 KVASIR_WEAVIATE__API_KEY 或该密钥的权限。",
    ),
    "weaviate_old": (
        "The Weaviate server at {url} is version {version}, and {needed} is needed; update the server.",
        "Weaviate 服务器 {url} 的版本是 {version}，至少需要 {needed}；请升级服务器。",
    ),
    "weaviate_failed": (
        "The Weaviate server at {url} could not do what was asked: {reason}",
        "Weaviate 服务器 {url} 无法完成请求：{reason}",
    ),
    "weaviate_not_stored": (
        "The Weaviate server at {url} has not stored everything within {seconds} seconds; try again: {reason}",
        "Weaviate 服务器 {url} 未能在 {seconds} 秒内全部存储；请重试：{reason}",
    ),
    "weaviate_restless": (
        "The index changes faster than it can be read; try again.",
        "索引变化过快，暂时无法读取；请重试。",
    ),
    "weaviate_check_server": ("Server", "服务器"),
    "weaviate_check_version": ("Weaviate {version} answers at {url}.", "{url} 上的 Weaviate {version} 有响应。"),
    "weaviate_check_use": ("Store", "存储"),
    "weaviate_check_used": ("Kvasir keeps its chunks there.", "Kvasir 的分块存放在这里。"),
    "weaviate_check_unused": (
        "Kvasir keeps its chunks elsewhere; KVASIR_STORE__KIND=weaviate changes that for what is indexed from then on.",
        "Kvasir 的分块存放在别处；设置 KVASIR_STORE__KIND=weaviate 后，新建的索引会存放在这里。",
    ),
    "weaviate_check_grpc": ("gRPC", "gRPC"),
    "weaviate_check_grpc_good": ("It answers at {address}.", "{address} 有响应。"),
    "weaviate_check_nodes": ("Nodes", "节点"),
    "weaviate_check_nodes_good": ("{count}, all healthy.", "共 {count} 个，全部正常。"),
    "weaviate_check_lost": ("Not healthy: {names}; look at their logs.", "异常节点：{names}；请查看其日志。"),
    "weaviate_check_copies": ("Copies", "副本"),
    "weaviate_check_copies_good": ("{wanted} of each chunk.", "每个分块 {wanted} 份。"),
    "weaviate_check_too_many": (
        "{wanted} copies are wanted of {nodes} nodes; lower KVASIR_WEAVIATE__REPLICATION_FACTOR or add nodes.",
        "需要 {wanted} 个副本，但只有 {nodes} 个节点；请调低 KVASIR_WEAVIATE__REPLICATION_FACTOR 或增加节点。",
    ),
    "weaviate_check_other_copies": (
        "{wanted} of what is made anew; what is there already has others ({names}).",
        "新建的集合有 {wanted} 个副本；已有集合的副本数不同（{names}）。",
    ),
    "weaviate_check_made": ("Indexes", "索引"),
    "weaviate_check_counted": (
        "{indexes} in {collections} collections.",
        "{collections} 个集合中共有 {indexes} 个索引。",
    ),
    "weaviate_bad_url": (
        "«{field}» is no address of a server; an example: http://127.0.0.1:8080",
        "“{field}” 不是服务器地址；例如：http://127.0.0.1:8080",
    ),
    "filter_too_big": (
        "The filter is too big; use fewer conditions.",
        "筛选条件过多，请减少。",
    ),
    "filter_unknown_field": (
        "There is no field «{field}» to filter by; use document, folder or meta.KEY.",
        "无法按“{field}”筛选；可用 document、folder 或 meta.键名。",
    ),
    "filter_one_value": (
        "The filter «{op}» takes one value; use «in» for several.",
        "筛选操作 “{op}” 只接受一个值；多个值请用 “in”。",
    ),
    "filter_folder_op": (
        "Folders are filtered by eq, ne, in or prefix, not by «{op}».",
        "文件夹只能用 eq、ne、in、prefix 筛选，不能用 “{op}”。",
    ),
    # knowledge bases, documents, jobs
    "bad_kb_name": (
        (
            "A knowledge base's name has 1 to 100 letters, digits, spaces, dots, hyphens or underscores, "
            "and begins and ends with a letter or digit."
        ),
        "知识库名称须为 1 到 100 个字母、汉字、数字、空格、点、连字符或下划线，且以字母、汉字或数字开头和结尾。",
    ),
    "kb_exists": (
        "There is a knowledge base named «{name}» already; choose another name.",
        "已有名为“{name}”的知识库，请换一个名称。",
    ),
    "no_kb_setting": ("A knowledge base has no setting {names}.", "知识库没有此设置：{names}。"),
    "bad_kb_setting": ("This is no value for {name}.", "{name} 的取值无效。"),
    "preset_no_rule": (
        "«{rule}» is no rule of an answer preset: write `name=value`, `name=value!` or `stop+=text`, with {names}.",
        "“{rule}”不是回答预设的规则：请写成 `名称=值`、`名称=值!` 或 `stop+=文本`，名称可为 {names}。",
    ),
    "preset_long": (
        "An answer preset has {most} rules at most, {stops} of them for `stop`.",
        "回答预设最多 {most} 条规则，其中 `stop` 最多 {stops} 条。",
    ),
    "preset_bad_stop": (
        "What an answer stops at is a printable text of {most} characters at most.",
        "停止文本须可打印，最多 {most} 个字符。",
    ),
    "bad_kb_number": ("{name} is a number from {lowest} to {highest}.", "{name} 须为 {lowest} 到 {highest} 之间的数。"),
    "kb_text_too_long": ("{name} has {most} characters at most.", "{name} 最多 {most} 个字符。"),
    "no_such_part": (
        "There is nothing named «{name}» for {kind}; there are: {there}.",
        "{kind} 中没有名为“{name}”的选项；可选：{there}。",
    ),
    "no_kb_yet": (
        "There is no knowledge base yet: put files in on the page «Documents», or by «kvasir ingest FOLDER --kb NAME».",
        "还没有知识库：请在“文档”页面添加文件，或运行 “kvasir ingest 文件夹 --kb 名称”。",
    ),
    "say_which_kb": (
        "Say which knowledge base with --kb; there are: {names}.",
        "请用 --kb 指定知识库；现有：{names}。",
    ),
    "no_document_named": (
        "«{kb}» has no document named «{name}»; «kvasir doc list --kb {kb}» shows them.",
        "“{kb}”中没有名为“{name}”的文档；用 “kvasir doc list --kb {kb}” 查看全部文档。",
    ),
    "no_original": (
        "The original of this document is no longer stored; ingest it again.",
        "此文档的原件已不存在，请重新导入。",
    ),
    "bad_chunk_size": (
        "The chunk size is a number of tokens from 32 to 8192.",
        "分块大小须为 32 到 8192 个词元。",
    ),
    "bad_chunk_overlap": (
        "The chunk overlap is a number of tokens from 0 to half the chunk size.",
        "分块重叠须为 0 到分块大小一半的词元数。",
    ),
    "document_needs_name": ("A document needs a name.", "文档需要一个名称。"),
    "file_too_large": (
        "«{name}» is larger than {limit} MB, the most that is accepted.",
        "“{name}”超过 {limit} MB 的上限。",
    ),
    "file_unreadable": ("«{name}» cannot be read: {reason}.", "无法读取“{name}”：{reason}。"),
    "cannot_store": (
        "The file could not be stored ({reason}). Free some space in the data directory and try again.",
        "无法保存文件（{reason}）。请在数据目录中腾出空间后重试。",
    ),
    "too_many_documents": (
        "«{kb}» may hold at most {most} documents (setting ingest.max_documents).",
        "“{kb}”最多可容纳 {most} 份文档（设置项 ingest.max_documents）。",
    ),
    "kb_full": (
        "«{kb}» may hold at most {most} documents, as its own settings say.",
        "按其自身设置，“{kb}”最多可容纳 {most} 份文档。",
    ),
    "kb_full_bytes": (
        "«{kb}» may hold at most {most} MB of originals, as its own settings say.",
        "按其自身设置，“{kb}”最多可容纳 {most} MB 原件。",
    ),
    "too_many_bytes": (
        "«{kb}» may hold at most {most} MB of originals (setting ingest.max_kb_mb).",
        "“{kb}”最多可容纳 {most} MB 原件（设置项 ingest.max_kb_mb）。",
    ),
    "index_restless": (
        "The index of «{kb}» changed again and again; try the ingestion once more.",
        "“{kb}”的索引不断变化，请重新导入。",
    ),
    # documents in the console
    "document_stays_disabled": (
        "It is disabled, and stays so; its new bytes are kept.",
        "该文档已停用，仍保持停用；新内容已保存。",
    ),
    "document_cancelled": ("It was cancelled before it was read.", "读取之前已取消。"),
    "document_busy": ("It is being read already.", "正在读取中。"),
    "document_not_failed": ("It has not failed.", "它没有失败。"),
    "document_not_waiting": ("It is not on its way in.", "它不在导入过程中。"),
    "document_not_disabled": ("It is not disabled.", "它没有被停用。"),
    "document_is_off": ("It is disabled already.", "它已经停用。"),
    "document_is_disabled": ("It is disabled; enable it first.", "该文档已停用，请先启用。"),
    "document_name_taken": ("«{kb}» has a document of that name already.", "“{kb}”中已有同名文档。"),
    "document_of_curated": (
        "It holds a curated answer; change it among the curated answers.",
        "它保存着一条精选回答；请在精选回答中修改。",
    ),
    "document_moved_to_itself": ("It is in «{kb}» already.", "它已在“{kb}”中。"),
    "no_original_left": (
        "The bytes as they were given are not there any more; upload the document again.",
        "原始文件已不存在，请重新上传该文档。",
    ),
    "no_such_version": ("This document has no such version.", "该文档没有这个版本。"),
    "version_is_current": ("These are the bytes it has now.", "这就是它当前的内容。"),
    "no_such_override": ("There is no such change.", "没有这项修改。"),
    "no_such_chunk": ("The document has no such chunk.", "该文档没有这个片段。"),
    "chunk_changed": (
        "The document has been read again meanwhile; look at the chunk as it is now.",
        "文档已被重新读取，请查看片段的最新内容。",
    ),
    "chunk_same": ("That is its text already.", "文字没有变化。"),
    "chunk_needs_text": ("A chunk needs text.", "片段不能没有文字。"),
    "chunk_too_long": (
        "A chunk may be {most} characters long at most; make two of it.",
        "一个片段最多 {most} 个字符，请拆成两个。",
    ),
    "too_many_overrides": (
        "A document can hold {most} changes at most; upload a better document instead.",
        "一份文档最多可有 {most} 处修改；请改为上传更好的文档。",
    ),
    "chunks_not_now": (
        "Its newest version could not be read. Restore a former version or upload it again, then change its chunks.",
        "它的最新版本无法读取。请恢复以前的版本或重新上传，然后才能修改片段。",
    ),
    "chunks_not_yet": (
        "It is not searched yet; its chunks can be changed once it is.",
        "它尚未进入索引，索引完成后才能修改片段。",
    ),
    "documents_retried": ("Read again: {count} in «{kb}».", "已重新读取：“{kb}”中的 {count} 份文档。"),
    "nothing_to_retry": ("No document of «{kb}» has failed.", "“{kb}”中没有失败的文档。"),
    "version_restored": ("«{name}» is version {number} again.", "“{name}”已恢复为版本 {number}。"),
    "former_version_kept": ("The version before it is still used.", "仍使用此前的版本。"),
    "was_not_read": ("It was not read.", "尚未读取。"),
    "was_not_finished": ("It was not finished; run it again.", "未处理完，请重新运行。"),
    "kb_deleted": ("«{kb}» was deleted meanwhile.", "“{kb}”已被删除。"),
    "index_measured": ("asking the evaluation set «{name}»", "正在用评测集“{name}”提问"),
    "index_waits": (
        "The new index of «{kb}» is complete and waits to be switched to.",
        "“{kb}”的新索引已构建完成，等待切换。",
    ),
    "index_switched": ("«{kb}» answers from its new index.", "“{kb}”已改用新索引回答。"),
    "index_busy": (
        "An index of «{kb}» is being built or switched already; wait for it, or cancel it.",
        "“{kb}”的索引正在构建或切换，请等待完成或先取消。",
    ),
    "uploaded_file": ("what was sent", "上传的文件"),
    "import_too_many": ("The file holds more than {most} documents.", "该文件包含的文档超过 {most} 份。"),
    # what another system left
    "import_large": ("It holds more than {most} million bytes or characters.", "内容超过 {most} 百万字节或字符。"),
    "import_pickle_refused": (
        "{file} was not read: {reason} Nothing of it was run.",
        "未读取 {file}：{reason}其中的内容没有被执行。",
    ),
    "import_name": (
        "It names «{name}», which no index of LangChain does.",
        "其中出现了 LangChain 索引不会使用的“{name}”。",
    ),
    "import_operation": (
        "It holds the operation {name}, which no index of LangChain does.",
        "其中含有 LangChain 索引不会使用的操作 {name}。",
    ),
    "import_no_docstore": (
        "It does not hold documents as LangChain writes them.",
        "其中的文档不是 LangChain 写入的格式。",
    ),
    "import_damaged": ("{file} cannot be read ({reason}).", "无法读取 {file}（{reason}）。"),
    "import_no_chroma": ("{file} is no database of Chroma.", "{file} 不是 Chroma 的数据库。"),
    "import_no_prompt": (
        "There is no prompt «{name}» for knowledge bases in it; there are: {names}.",
        "其中没有名为“{name}”的知识库提示词；现有：{names}。",
    ),
    "import_nothing": (
        (
            "{folder} holds no knowledge base of Langchain-Chatchat: neither folders with «content» or «vector_store», "
            "nor index.pkl, nor chroma.sqlite3."
        ),
        (
            "{folder} 中没有 Langchain-Chatchat 的知识库：既没有含 content 或 vector_store 的文件夹，"
            "也没有 index.pkl 或 chroma.sqlite3。"
        ),
    ),
    "import_no_such": ("There is no «{name}» in it; there are: {names}.", "其中没有“{name}”；现有：{names}。"),
    "import_several": (
        "It holds several knowledge bases ({names}); choose one with --only, then --kb can name it.",
        "其中有多个知识库（{names}）；请先用 --only 选定一个，再用 --kb 命名。",
    ),
    "import_no_folder": (
        "The database knows this knowledge base, but its folder is not there.",
        "数据库中有此知识库，但其文件夹不存在。",
    ),
    "import_gone": (
        "Neither its original nor its text is there.",
        "原件和文本均已不存在。",
    ),
    "import_custom": (
        "Its chunks were changed by hand; the original was brought, these changes were not.",
        "其分块曾被手工修改；已导入原件，但未导入这些修改。",
    ),
    "import_summaries": ("{count} summaries were not brought.", "未导入 {count} 条摘要。"),
    "import_chats": ("{count} chat messages were not brought.", "未导入 {count} 条聊天消息。"),
    "import_link": (
        "It is a link or no plain file, and was not followed.",
        "它是链接或不是普通文件，未予读取。",
    ),
    "import_many": ("There are more than {most} files; the rest was left out.", "文件超过 {most} 个，其余未导入。"),
    "import_deep": ("What lies deeper was left out.", "更深层的文件夹未导入。"),
    "import_elsewhere": (
        "Its index lies in a server ({kind}); only originals were brought.",
        "其索引在服务器（{kind}）中；只导入了原件。",
    ),
    "import_differs": (
        "It holds {vectors} vectors, and the texts of {texts} chunks: some may be missing.",
        "其中有 {vectors} 个向量，却只有 {texts} 个分块的文本：可能有缺失。",
    ),
    "import_from_chunks": (
        "Put together from the chunks of a Langchain-Chatchat index: the original «{name}» was not there any more.",
        "由 Langchain-Chatchat 索引中的分块拼成：原件“{name}”已不存在。",
    ),
    "import_renamed": ("It is called «{name}» here.", "此处名为“{name}”。"),
    "import_too_large": ("The file holds more than {most} MB of originals.", "该文件包含的原件超过 {most} MB。"),
    "restore_secrets": (
        "{count} tokens or keys were encrypted with a key that is not here; enter them again in the console.",
        "有 {count} 个令牌或密钥是用别处的密钥加密的，请在控制台重新输入。",
    ),
    "no_such_index": ("There is no such index any more.", "该索引已不存在。"),
    "index_not_waiting": (
        "This index is not complete yet, or in use already.",
        "该索引尚未构建完成，或已在使用中。",
    ),
    "index_is_live": (
        "This is the index that answers come from; switch to another one first.",
        "该索引正在使用中，请先切换到其他索引。",
    ),
    "no_former_index": ("«{kb}» has no former index to go back to.", "“{kb}”没有可以恢复的旧索引。"),
    "no_ready_index": (
        "«{kb}» has no index that waits to be switched to; «kvasir kb reindex {kb} --beside» builds one.",
        "“{kb}”没有待切换的索引；可用 “kvasir kb reindex {kb} --beside” 构建。",
    ),
    "switch_would_lose": (
        "{count} documents of «{kb}» cannot be read any more and would be lost with this index: {names}.",
        "“{kb}”中有 {count} 份文档已无法读取，切换到该索引后将会丢失：{names}。",
    ),
    "unreadable_again": (
        (
            "{count} documents of «{kb}» could not be read again ({names}); the index before stays. "
            "Delete or ingest them again, then re-index."
        ),
        "“{kb}”中有 {count} 份文档无法再次读取（{names}），原索引保持不变。请删除或重新导入这些文档，然后重建索引。",
    ),
    "other_embedder": (
        (
            "This knowledge base was embedded with a model that is not loaded now; "
            "load it again, or run «kvasir kb reindex» for the present one."
        ),
        "此知识库由另一个未加载的模型生成向量；请重新加载该模型，或运行 “kvasir kb reindex” 改用当前模型。",
    ),
    "job_ended": ("The job has ended already.", "任务已经结束。"),
    "job_not_failed": (
        "Only a job that failed or was cancelled can be tried again.",
        "只有失败或已取消的任务才能重试。",
    ),
    "link_leads_out": (
        "«{name}» is a link out of the folder; name the file itself if it is meant.",
        "“{name}”是指向文件夹之外的链接；如确需导入，请直接指定该文件。",
    ),
    "no_such_path": ("{path} is neither a file nor a folder.", "{path} 既不是文件也不是文件夹。"),
    "embedder_off": ("The settings say `embedder.kind = none`.", "设置中 `embedder.kind = none`。"),
    "embedder_not_fetched": (
        "The model was not fetched yet; «kvasir up» or «kvasir ingest» does it.",
        "尚未下载模型；运行 “kvasir up” 或 “kvasir ingest” 会自动下载。",
    ),
    # the command line
    "interrupted": (
        "stopped. Nothing is left half done, and the same command goes on from here.",
        "已停止。没有留下未完成的数据，再次运行同一命令即可继续。",
    ),
    "system_error": ("The system refused something: {reason} ({file}).", "系统拒绝了操作：{reason}（{file}）。"),
    "our_error": (
        "This is an error of ours ({kind}: {detail}). KVASIR_LOG__LEVEL=DEBUG shows where; please report it.",
        "这是 Kvasir 自身的错误（{kind}：{detail}）。设置 KVASIR_LOG__LEVEL=DEBUG 可查看位置；请向我们报告。",
    ),
    "say_yes": ("Say --yes to do it.", "确认请加 --yes。"),
    "nothing_found": ("Nothing was found.", "没有找到任何内容。"),
    "no_answer_came": ("No answer came; try again.", "没有得到回答，请重试。"),
    "same_name_twice": (
        "Two files would be the document «{name}» ({one}, {other}); ingest the folder above them instead.",
        "有两个文件都会成为文档“{name}”（{one}、{other}）；请改为导入它们的上级文件夹。",
    ),
    "ingested": (
        "{kb}: {indexed} indexed, {unchanged} unchanged, {failed} failed; {chunks} chunks in {seconds} s.",
        "{kb}：已索引 {indexed} 份，未变 {unchanged} 份，失败 {failed} 份；共 {chunks} 个分块，用时 {seconds} 秒。",
    ),
    "nothing_to_ingest": (
        "There was nothing to ingest; hidden files and folders are left out.",
        "没有可导入的文件；隐藏的文件和文件夹会被跳过。",
    ),
    "kb_created": ("The knowledge base «{name}» was created.", "已创建知识库“{name}”。"),
    "kb_delete_sure": (
        (
            "Delete «{name}» with its {documents} documents ({chunks} chunks), {sources} sources and {curated} curated "
            "answers?"
        ),
        "要删除“{name}”及其 {documents} 份文档（{chunks} 个分块）、{sources} 个数据源和 {curated} 条审定答案吗？",
    ),
    "kb_set_usage": ("Say SETTING=VALUE; there are: {names}.", "请使用 设置=值 的形式；可设置：{names}。"),
    "kb_was_set": ("«{kb}» was changed.", "已更改“{kb}”。"),
    "kb_needs_reindex": (
        "Its index is still as it was; «kvasir kb reindex {kb}» builds it as it is set now.",
        "索引仍为原样；运行 “kvasir kb reindex {kb}” 即按现有设置重建。",
    ),
    "index_waits_at": (
        (
            "The new index of «{kb}» waits: {documents} documents, {chunks} chunks ({before} in the one in use). "
            "«kvasir kb switch {kb}» goes over to it, «kvasir kb discard {kb}» gives it up."
        ),
        (
            "“{kb}”的新索引已就绪：{documents} 份文档，{chunks} 个分块（使用中的索引为 {before} 个）。"
            "运行 “kvasir kb switch {kb}” 切换，“kvasir kb discard {kb}” 放弃。"
        ),
    ),
    "index_back": ("«{kb}» answers from its former index again.", "“{kb}”已恢复使用旧索引。"),
    "index_discarded": ("The new index of «{kb}» was given up.", "已放弃“{kb}”的新索引。"),
    "kb_was_deleted": ("«{name}» was deleted.", "已删除“{name}”。"),
    "bad_person_key": (
        (
            "«{person}» is no account, and nobody's key on a chat platform; that looks like slack:T1:U9, or slack:T1:* "
            "for everybody in a workspace."
        ),
        "“{person}”不是账号，也不是聊天平台上的人员标识；后者形如 slack:T1:U9，或用 slack:T1:* 表示整个工作区的成员。",
    ),
    "person_not_allowed": (
        "«{person}» was not let in to «{kb}»; «kvasir kb show {kb}» lists who is.",
        "“{person}”本来就未获准使用“{kb}”；用 “kvasir kb show {kb}” 查看名单。",
    ),
    "edit_needs_account": (
        "Only accounts can edit; people of chat platforms can be let in to ask.",
        "只有账号可以编辑；聊天平台上的人只能获准提问。",
    ),
    "kb_now_allowed": ("May ask «{kb}» now: {people}.", "现可提问“{kb}”：{people}。"),
    "kb_no_longer_allowed": ("May no longer ask «{kb}»: {people}.", "不再可提问“{kb}”：{people}。"),
    "kb_not_private": (
        "«{kb}» is not private, so everybody who may ask at all can ask it; nothing needs allowing.",
        "“{kb}”不是私有知识库，凡可提问者都能使用，无需另行授权。",
    ),
    "reindexed": (
        "{kb}: {documents} documents, {chunks} chunks, {search}.",
        "{kb}：{documents} 份文档，{chunks} 个分块，{search}。",
    ),
    "search_empty": ("empty", "空"),
    "search_both": ("vectors ({embedder}) and keywords", "向量（{embedder}）和关键词"),
    "search_keywords": ("keywords only", "仅关键词"),
    "documents_written": ("{count} documents were written to {file}.", "已将 {count} 份文档写入 {file}。"),
    "kb_imported": (
        "{kb}: {count} documents came in, {failed} failed.",
        "{kb}：导入 {count} 份文档，失败 {failed} 份。",
    ),
    "documents_delete_sure": ("Delete {count} documents from «{kb}»?", "要从“{kb}”中删除 {count} 份文档吗？"),
    "documents_deleted": ("{count} documents were deleted from «{kb}».", "已从“{kb}”中删除 {count} 份文档。"),
    "ratings_written": ("{count} ratings were written to {file}.", "已将 {count} 条评价写入 {file}。"),
    "job_queued_again": ("It is queued again; «kvasir up» works it off.", "已重新排队，由 “kvasir up” 处理。"),
    "job_ingest": ("Documents", "文档导入"),
    "job_reindex": ("Index", "索引"),
    "job_about_ingest": ("Documents for «{kb}»", "将文档导入“{kb}”"),
    "job_move": ("Move", "迁移"),
    "job_about_move": ("«{kb}» to another store", "将“{kb}”迁移到其他存储"),
    "job_about_reindex": ("A new index of «{kb}»", "为“{kb}”重建索引"),
    "job_switch": ("Index", "索引"),
    "job_about_switch": ("Another index of «{kb}» goes live", "切换“{kb}”的索引"),
    "job_about_retention": ("Deletion of old conversations", "清理旧会话"),
    "job_about_backup": ("A backup of everything", "备份全部数据"),
    # schedules
    "schedule_backup": ("Backup", "备份"),
    "schedule_backup_about": (
        "Writes everything into one file, and keeps the newest of these files.",
        "把全部数据写入一个文件，并保留最新的若干份。",
    ),
    "schedule_backup_keep": ("Backups to keep", "保留份数"),
    "schedule_backup_index": (
        "With the indexes, so that nothing is embedded anew at a restore",
        "连同索引一起备份，恢复时无需重新向量化",
    ),
    "schedule_retention": ("Deletion of old conversations", "清理旧会话"),
    "schedule_retention_about": (
        "Deletes what was asked longer ago than is to be kept, with its ratings, reviews and files.",
        "删除超过保留期限的提问，连同其评价、审核记录和文件。",
    ),
    "schedule_retention_days": ("Days that are kept", "保留天数"),
    "schedule_retention_platform": ("Platform", "平台"),
    "schedule_all_platforms": ("All platforms", "全部平台"),
    "schedule_all_channels": ("All channels that want one", "所有订阅的频道"),
    "schedule_daily": ("The last day", "最近一天"),
    "schedule_weekly": ("The last week", "最近一周"),
    "schedule_curated": ("Re-check of curated answers", "复查审定答案"),
    "schedule_curated_about": (
        "Looks whether curated answers have expired, or rest on documents that have changed.",
        "检查审定答案是否过期，或其依据的文档是否已变化。",
    ),
    "job_about_curated": ("A re-check of curated answers", "复查审定答案"),
    "schedule_evaluation": ("Evaluation", "评测"),
    "schedule_evaluation_about": (
        "Asks the questions of an evaluation set, and keeps how many were answered as expected.",
        "依次提问评测集中的问题，并记录有多少得到了预期的答案。",
    ),
    "job_about_evaluation": ("Evaluation «{name}»", "评测“{name}”"),
    "schedule_sync": ("Synchronisation of a source", "同步数据源"),
    "schedule_sync_about": (
        "Brings in what is new or changed at a source, and removes what is gone there.",
        "导入数据源中新增或变化的内容，并删除数据源中已不存在的文档。",
    ),
    "job_about_sync": ("Source «{name}»", "数据源“{name}”"),
    # sources
    "no_such_source": ("There is no such source.", "没有此数据源。"),
    "no_source_named": ("The knowledge base «{kb}» has no source «{name}».", "知识库“{kb}”没有数据源“{name}”。"),
    "source_bad_kind": (
        "There is no kind of source «{kind}»; there are: {there}.",
        "没有“{kind}”这种数据源；可选：{there}。",
    ),
    "source_bad_name": (
        "A source needs a name of at most {most} characters, without slashes.",
        "数据源需要一个名称，不超过 {most} 个字符，且不含斜杠。",
    ),
    "source_exists": ("There is a source «{name}» already.", "已有名为“{name}”的数据源。"),
    "source_no_field": ("A source of this kind has no setting «{field}».", "此类数据源没有“{field}”这项设置。"),
    "source_field_missing": ("{field}: please fill this in.", "{field}：请填写。"),
    "source_field_url": ("Address", "地址"),
    "source_field_urls": ("Addresses", "网页地址"),
    "source_field_include": ("Only these paths", "仅包含的路径"),
    "source_field_exclude": ("Not these paths", "排除的路径"),
    "source_field_limit": ("At most", "最多数量"),
    "source_field_branch": ("Branch", "分支"),
    "source_field_folder": ("Folder in the repository", "仓库内的文件夹"),
    "source_field_username": ("User name", "用户名"),
    "source_field_path": ("Folder on the server", "服务器上的文件夹"),
    "source_field_full_text": ("Fetch the full pages", "抓取全文"),
    "source_field_forget": ("Delete what left the feed", "删除已移出订阅的条目"),
    "source_added": ("The source «{name}» was added to «{kb}».", "数据源“{name}”已添加到“{kb}”。"),
    "source_synced": ("{name}: {result}", "{name}：{result}"),
    "source_left_out": ("  {reason}", "  {reason}"),
    "source_was_deleted": (
        "The source «{name}» was deleted; documents deleted: {count}.",
        "数据源“{name}”已删除；删除文档 {count} 个。",
    ),
    "source_delete_sure": (
        "Delete the source «{name}», and {count} documents?",
        "要删除数据源“{name}”以及 {count} 个文档吗？",
    ),
    "source_folder_admin": (
        "Folders of the server are for administrators.",
        "只有管理员可以使用服务器上的文件夹。",
    ),
    "source_no_secret": ("A source of this kind needs no token.", "此类数据源不需要令牌。"),
    "source_under_way": ("«{name}» is being synchronised already.", "“{name}”正在同步中。"),
    "source_preview_slow": (
        "The source did not answer within {seconds} seconds; try it with fewer pages, or later.",
        "数据源在 {seconds} 秒内没有响应；请减少页面数量，或稍后再试。",
    ),
    "source_limit": ("There is more than {most}; the rest is left out.", "内容超过 {most} 项，其余未导入。"),
    "source_skipped_robots": (
        "{count} pages were left out, since the site's robots.txt asks for it.",
        "按照该网站 robots.txt 的要求，略过了 {count} 个页面。",
    ),
    "source_skipped_elsewhere": ("{count} pages of other sites were left out.", "略过了 {count} 个其他网站的页面。"),
    "source_skipped_unreadable": (
        "{count} files are of kinds that cannot be read, and were left out.",
        "有 {count} 个文件的格式无法读取，已略过。",
    ),
    "source_skipped_large": ("{count} files are too large, and were left out.", "有 {count} 个文件过大，已略过。"),
    "source_bad_xml": ("What is at this address is damaged, or no XML.", "该地址的内容已损坏，或不是 XML。"),
    "source_no_sitemap": (
        "What is at this address is no sitemap; it is often at /sitemap.xml.",
        "该地址不是站点地图；站点地图通常位于 /sitemap.xml。",
    ),
    "source_no_feed": ("What is at this address is no RSS or Atom feed.", "该地址不是 RSS 或 Atom 订阅。"),
    "source_no_folders": (
        "No folder of the server may be a source; the setting sources.folders names those that may.",
        "服务器上没有可作数据源的文件夹；可用设置 sources.folders 指定。",
    ),
    "source_folder_absolute": (
        "Give the whole path of the folder, from / on.",
        "请填写文件夹的完整路径，以 / 开头。",
    ),
    "source_folder_outside": (
        "There is no such folder below those that may be sources: {folders}.",
        "在允许作为数据源的文件夹（{folders}）之下没有该文件夹。",
    ),
    "source_folder_unreadable": (
        "The folder {path} cannot be listed ({reason}), so nothing was removed.",
        "无法列出文件夹 {path}（{reason}），因此没有删除任何文档。",
    ),
    "git_missing": (
        "The program git is not installed on the server; install it, and sources of this kind work.",
        "服务器上没有安装 git 程序；安装后即可使用此类数据源。",
    ),
    "git_old": (
        "The program git on the server is too old; it must be {least} or newer.",
        "服务器上的 git 程序版本过旧，需要 {least} 或更高版本。",
    ),
    "git_slow": ("git was not done within {seconds} seconds.", "git 在 {seconds} 秒内没有完成。"),
    "git_large": ("The repository is larger than {most} MB.", "仓库超过 {most} MB。"),
    "git_failed": ("git could not read the repository: {reason}", "git 无法读取仓库：{reason}"),
    "git_login_needed": (
        "The repository is not there, or needs a valid token.",
        "仓库不存在，或需要有效的令牌。",
    ),
    "git_no_branch": ("The repository has no such branch.", "仓库中没有该分支。"),
    "git_no_folder": ("The repository has no folder «{folder}».", "仓库中没有文件夹“{folder}”。"),
    "git_token_https": (
        "A token is sent only to addresses that begin with https.",
        "令牌只会发送到以 https 开头的地址。",
    ),
    "sync_had_its_fill": (
        "More than {most} MB were fetched in one go; the rest follows the next time.",
        "一次抓取超过 {most} MB；其余内容下次继续。",
    ),
    "sync_left_out": ("Left out, since the same source is being synchronised.", "同一数据源正在同步，本次略过。"),
    "sync_slow": (
        "It was not done within {minutes} minutes; what came in stays, and the next time it goes on.",
        "在 {minutes} 分钟内没有完成；已导入的内容会保留，下次继续。",
    ),
    "sync_nothing_new": ("Nothing has changed; {count} documents.", "没有变化；共 {count} 个文档。"),
    "sync_all_gone": (
        "Nothing of it is there any more. In case that is a mistake, its {count} documents were kept.",
        "数据源中已没有任何内容。为防误删，已保留其 {count} 个文档。",
    ),
    "sync_nothing_had": (
        "Nothing could be had, and nothing was removed: {reason}",
        "没有获取到任何内容，也没有删除任何文档：{reason}",
    ),
    "sync_gave_up": (
        "The source was left alone after too many failures, and nothing was removed: {reason}",
        "多次失败后已停止，没有删除任何文档：{reason}",
    ),
    "sync_some_failed": ("{count} could not be had: {reason}", "有 {count} 项无法获取：{reason}"),
    "sync_done": (
        "{added} new, {changed} changed, {removed} removed, {same} as they were.",
        "新增 {added}，更新 {changed}，删除 {removed}，未变 {same}。",
    ),
    "backup_folder_refused": (
        "The folder {folder} for backups cannot be made: {reason}. Choose another one with the setting backup.folder.",
        "无法创建备份文件夹 {folder}：{reason}。请用设置 backup.folder 另选一个。",
    ),
    "backup_done": (
        "{file} was written (documents: {count}, {megabytes} MB); old backups deleted: {deleted}.",
        "已写入 {file}：{count} 个文档，{megabytes} MB；删除了 {deleted} 份旧备份。",
    ),
    "schedule_leader_none": (
        "No process minds the schedules; start «kvasir up» or «kvasir up jobs».",
        "没有进程在执行定时任务；请启动 “kvasir up” 或 “kvasir up jobs”。",
    ),
    "schedule_made": (
        "The schedule «{name}» was made; next run: {next} UTC.",
        "定时任务“{name}”已创建；下次运行：{next} UTC。",
    ),
    "schedule_run_queued": ("«{name}» is queued; «kvasir up» works it off.", "“{name}”已排队，由 “kvasir up” 处理。"),
    "schedule_was_deleted": ("The schedule «{name}» was deleted.", "定时任务“{name}”已删除。"),
    "schedule_delete_sure": (
        "Delete the schedule «{name}» with its history?",
        "要删除定时任务“{name}”及其历史记录吗？",
    ),
    "schedule_ambiguous": (
        "Several schedules are called «{name}»; give the id instead.",
        "有多个名为“{name}”的定时任务；请改用编号。",
    ),
    "no_such_schedule": ("There is no such schedule.", "没有此定时任务。"),
    "schedule_bad_kind": ("«{kind}» cannot be scheduled; there are: {there}.", "“{kind}”不能定时执行；可选：{there}。"),
    "schedule_bad_name": (
        "A schedule needs a name of at most {most} characters.",
        "定时任务需要一个名称，不超过 {most} 个字符。",
    ),
    "schedule_bad_setting": ("A schedule has no setting {names}.", "定时任务没有 {names} 这项设置。"),
    "schedule_field_range": ("{field}: from {least} to {most}.", "{field}：应在 {least} 到 {most} 之间。"),
    "schedule_field_bad": ("{field}: this value cannot be used.", "{field}：无法使用此值。"),
    "schedule_no_target": ("Choose what «{kind}» is for.", "请选择“{kind}”的对象。"),
    "schedule_still_running": (
        "Left out, since the run before was not over.",
        "上一次运行尚未结束，本次略过。",
    ),
    "cron_five_fields": (
        "The times need five fields (minute, hour, day, month, weekday), but there are {count}.",
        "时间需要五个字段（分、时、日、月、星期），现有 {count} 个。",
    ),
    "cron_bad_field": (
        "{field}: «{value}» cannot be used; numbers go from {least} to {most}, e.g. 1,5 or 1-5 or */2.",
        "{field}：不能使用“{value}”；数字应在 {least} 到 {most} 之间，例如 1,5、1-5 或 */2。",
    ),
    "cron_field_minute": ("Minute", "分"),
    "cron_field_hour": ("Hour", "时"),
    "cron_field_day": ("Day of the month", "日"),
    "cron_field_month": ("Month", "月"),
    "cron_field_weekday": ("Weekday", "星期"),
    "cron_never": ("There is no such day in any year.", "任何一年都没有这样的日子。"),
    "cron_bad_timezone": (
        "There is no time zone «{name}»; they are named like Europe/Berlin or Asia/Shanghai.",
        "没有时区“{name}”；时区名称形如 Asia/Shanghai 或 Europe/Berlin。",
    ),
    "cron_every_minutes": ("every {count} minutes", "每 {count} 分钟"),
    "cron_hourly": ("every hour at minute {minute}", "每小时的第 {minute} 分"),
    "cron_daily": ("every day at {at}", "每天 {at}"),
    "cron_weekly": ("every {day} at {at}", "每{day} {at}"),
    "cron_monthly": ("on day {day} of every month at {at}", "每月 {day} 日 {at}"),
    "weekday_mon": ("Monday", "周一"),
    "weekday_tue": ("Tuesday", "周二"),
    "weekday_wed": ("Wednesday", "周三"),
    "weekday_thu": ("Thursday", "周四"),
    "weekday_fri": ("Friday", "周五"),
    "weekday_sat": ("Saturday", "周六"),
    "weekday_sun": ("Sunday", "周日"),
    "job_being_cancelled": ("It is being cancelled.", "正在取消。"),
    "user_added": ("{name} was added as {role}.", "已添加 {name}，角色为 {role}。"),
    "user_enabled": ("{name} may log in again.", "{name} 可以重新登录。"),
    "user_disabled": ("{name} may not log in any more.", "{name} 不能再登录。"),
    "user_new_password": ("{name} has a new password.", "已为 {name} 设置新密码。"),
    "key_shown_once": ("Keep it now: it is not shown again.", "请立即保存：它不会再次显示。"),
    "key_revoked": ("The key is revoked.", "密钥已吊销。"),
    "password_no_terminal": (
        "There is no terminal to ask for the password; use --password-stdin.",
        "没有终端可供输入密码；请使用 --password-stdin。",
    ),
    "settings_at_default": (
        "{count} settings are at their default; --all shows them.",
        "{count} 项设置为默认值；加 --all 查看。",
    ),
    "no_such_setting": (
        "{name} is set, but there is no such setting; mind the spelling.",
        "设置了 {name}，但没有这一设置项；请检查拼写。",
    ),
    "data_dir_refused": (
        "The data directory {folder} cannot be used ({reason}); name another with --data-dir or KVASIR_DATA_DIR.",
        "无法使用数据目录 {folder}（{reason}）；请用 --data-dir 或 KVASIR_DATA_DIR 另行指定。",
    ),
    # Kvasir's own database
    "database_newest": (
        "The database is at revision {revision}, the newest.",
        "数据库位于修订版 {revision}，已是最新。",
    ),
    "database_absent": (
        "There is no database yet; «kvasir db upgrade» or «kvasir up» makes it.",
        "还没有数据库；运行 “kvasir db upgrade” 或 “kvasir up” 即可创建。",
    ),
    "database_old": (
        "The database is at revision {revision}, not {newest}; run «kvasir db upgrade».",
        "数据库位于修订版 {revision}，而非 {newest}；请运行 “kvasir db upgrade”。",
    ),
    "database_queue_taken": (
        "The database holds tables of procrastinate that another program made; give Kvasir a database of its own.",
        "数据库中已有其他程序建立的 procrastinate 表；请给 Kvasir 单独的数据库。",
    ),
    "sizes_unknown": (
        "This SQLite does not say how large tables are.",
        "此 SQLite 无法给出各表的大小。",
    ),
    "doctor_connections": ("Connections", "数据库连接"),
    "doctor_connections_enough": (
        "{taken} of {most} are in use; {processes} processes may open {need}.",
        "已用 {taken}/{most}；{processes} 个进程最多需要 {need} 个。",
    ),
    "doctor_connections_few": (
        (
            "{processes} processes may open {need}, and the server takes {most}: raise its max_connections, or lower "
            "database.pool_size and database.pool_overflow."
        ),
        (
            "{processes} 个进程最多需要 {need} 个连接，而服务器只接受 {most} 个：请调高 max_connections，"
            "或调低 database.pool_size 与 database.pool_overflow。"
        ),
    ),
    "database_away": (
        "The database {database} cannot be reached ({reason}); check KVASIR_DATABASE__URL and the server.",
        "无法连接数据库 {database}（{reason}）；请检查 KVASIR_DATABASE__URL 和服务器。",
    ),
    "another_folder": (
        (
            "Another Kvasir runs on this database with a data directory of its own. The store «local» is a file in it, "
            "so each would miss the other's documents. Give both a shared store (KVASIR_STORE__KIND=pgvector or "
            "weaviate; «kvasir kb move» takes there what is in «local»), or one data directory on one machine. "
            "One that was killed is forgotten after {seconds} s."
        ),
        (
            "另一个 Kvasir 正在此数据库上运行，但使用它自己的数据目录。存储“local”是其中的一个文件，彼此找不到对方的"
            "文档。请让两者使用共享存储（KVASIR_STORE__KIND=pgvector 或 weaviate；“kvasir kb move”可迁移“local”中的"
            "内容），或在同一台机器上使用同一个数据目录。被强行终止的进程会在 {seconds} 秒后被遗忘。"
        ),
    ),
    "database_all_taken": (
        "All connections to the database are in use; try again, or raise database.pool_overflow.",
        "数据库连接已全部占用；请稍后重试，或调高 database.pool_overflow。",
    ),
    "database_in_the_way": (
        "The database could not do it in time ({reason}); try again.",
        "数据库未能及时完成（{reason}）；请重试。",
    ),
    "database_bad_url": (
        (
            "KVASIR_DATABASE__URL is not the address of a SQLite or PostgreSQL database; "
            "write postgresql://USER:PASSWORD@HOST/NAME."
        ),
        "KVASIR_DATABASE__URL 不是 SQLite 或 PostgreSQL 数据库的地址；请写作 postgresql://用户:密码@主机/数据库名。",
    ),
    "database_full": (
        "There is no space left for the database {database}; free some and try again, nothing stored before is lost.",
        "数据库 {database} 所在磁盘已满；请腾出空间后重试，已存的内容没有丢失。",
    ),
    "database_read_only": (
        "The database {database} is read-only; give Kvasir the right to write it and its folder.",
        "数据库 {database} 为只读；请授予 Kvasir 写入它及其文件夹的权限。",
    ),
    "database_locked": (
        "Another process has kept the database {database} locked for too long; try again when it is done.",
        "数据库 {database} 被另一进程锁定过久；请待其完成后重试。",
    ),
    "database_damaged": (
        "The database {database} is damaged; restore a backup with «kvasir restore» into another data directory.",
        "数据库 {database} 已损坏；请用 “kvasir restore” 将备份恢复到另一个数据目录。",
    ),
    "database_unreachable": (
        "The database {database} cannot be used ({reason}); check KVASIR_DATABASE__URL and the server.",
        "无法使用数据库 {database}（{reason}）；请检查 KVASIR_DATABASE__URL 和服务器。",
    ),
    # backups
    "backed_up": (
        "{count} documents and everything else were written to {file}.",
        "已将 {count} 份文档及其余全部数据写入 {file}。",
    ),
    "restored": ("{count} documents are back in {folder}.", "已将 {count} 份文档恢复到 {folder}。"),
    "restore_waiting": (
        "{count} of them are read and indexed anew while «kvasir up» runs; «kvasir backup --with-index» spares this.",
        "其中 {count} 份将在“kvasir up”运行时重新读取并索引；用“kvasir backup --with-index”备份可免去这一步。",
    ),
    "file_exists": ("{file} exists already; name another file.", "{file} 已存在；请换一个文件名。"),
    "file_not_written": ("{file} could not be written ({reason}).", "无法写入 {file}（{reason}）。"),
    "no_such_file": ("There is no file {file}.", "没有文件 {file}。"),
    "not_a_backup": (
        "{file} is not a file of Kvasir's, or it is damaged; nothing was changed.",
        "{file} 不是 Kvasir 写出的文件，或者已损坏；没有作任何更改。",
    ),
    "backup_is_export": (
        "{file} is not a backup; bring an exported knowledge base in with «kvasir kb import».",
        "{file} 不是备份；导出的知识库请用 “kvasir kb import” 导入。",
    ),
    "not_an_export": (
        "{file} is not an exported knowledge base; bring a backup back with «kvasir restore».",
        "{file} 不是导出的知识库；备份请用 “kvasir restore” 恢复。",
    ),
    "backup_other_version": (
        "Another version of Kvasir wrote this file; use that version to read it.",
        "此文件由其他版本的 Kvasir 写出；请用该版本读取。",
    ),
    "weaviate_no_oidc": (
        "The Weaviate server at {url} knows no OpenID Connect; set weaviate.api_key, or neither.",
        "{url} 处的 Weaviate 服务器未启用 OpenID Connect；请设置 weaviate.api_key，或两者都不设置。",
    ),
    "restore_indexes": ("Indexes", "索引"),
    "restore_differs": (
        "Nothing was restored: «{store}» does not hold what it was given. Try again, or use another store.",
        "未恢复任何数据：“{store}”中的内容与写入的不一致。请重试，或改用其他存储。",
    ),
    "backup_no_room": (
        "The backup holds {needed} MB, and {folder} has room for {free} MB; make room first.",
        "备份内容为 {needed} MB，而 {folder} 只剩 {free} MB；请先腾出空间。",
    ),
    "backup_part_damaged": (
        "The file is damaged: «{name}» does not match its hash; use another copy.",
        "文件已损坏：“{name}”与其哈希不符；请使用另一份副本。",
    ),
    "restore_not_empty": (
        "There is data already; restore into an empty data directory (--data-dir) and an empty database.",
        "这里已有数据；请恢复到空的数据目录（--data-dir）和空的数据库。",
    ),
    "model_wait": ("Waiting for another Kvasir that fetches the model", "等待另一个 Kvasir 下载模型"),
    "model_fetch": ("Fetching the embedding model", "正在下载嵌入模型"),
    "model_build": ("Building the embedding model", "正在构建嵌入模型"),
    "model_connect": ("Asking the embedding server", "正在连接嵌入服务器"),
    "model_load": ("Loading the model", "正在加载模型"),
    "model_import": ("Starting the model's library", "正在启动模型的程序库"),
    "model_check": ("Reading the model's files", "正在读取模型文件"),
    # Discord
    "discord_token_refused": (
        "Discord does not know this token (any more); make a new one under «Bot» in the developer portal.",
        "Discord 不接受该令牌（或已失效）；请在开发者门户的 “Bot” 页重新生成。",
    ),
    "discord_intent_off": (
        (
            "The message content intent is not switched on for this bot: switch it on under «Bot» in the developer "
            "portal, or take discord.message_content out of the settings."
        ),
        "该机器人未开启消息内容权限：请在开发者门户的 “Bot” 页开启，或从设置中去掉 discord.message_content。",
    ),
    "discord_shared_by": ("Shared by {name}", "由 {name} 分享"),
    "discord_shared": ("Shown to the channel.", "已分享到频道。"),
    "discord_not_shared": (
        "It could not be shown here; I may not write in this channel.",
        "无法分享到此处；我没有在本频道发言的权限。",
    ),
    "discord_not_shared_private": (
        "This answer comes from a private knowledge base; it is not shown to others.",
        "该回答来自私有知识库，不能展示给他人。",
    ),
    "discord_command_kvasir": ("Ask, and set how I answer here", "提问，并设置此处的回答方式"),
    "discord_command_ask": ("Ask a question; only you see the answer", "提问；回答仅您可见"),
    "discord_command_help": ("What I can do", "使用说明"),
    "discord_command_status": ("How I answer here", "此处的回答方式"),
    "discord_command_kb": ("What can be asked here, or choose it", "查看或选择此处可问的知识库"),
    "discord_command_set": ("Change how I answer here", "更改此处的回答方式"),
    "discord_command_reset": ("Set everything back here", "全部恢复默认"),
    "discord_option_question": ("What would you like to know?", "您想知道什么？"),
    "discord_option_kb": ("Knowledge base to answer from", "用于回答的知识库"),
    "discord_option_kbs": ("Knowledge bases to answer from, with commas between", "用于回答的知识库，以逗号分隔"),
    "discord_option_what": ("What to change", "要更改的项目"),
    "discord_option_value": ("Its new value; «default» sets it back", "新的值；default 恢复默认"),
    "discord_menu_ask": ("Ask Kvasir about this", "就此提问 Kvasir"),
    "discord_menu_keep": ("Keep as answer", "存为标准答案"),
    "discord_check_token": ("Discord: token", "Discord：令牌"),
    "discord_check_off": (
        "Discord is off. Put the bot's token into the settings (discord.token, or KVASIR_DISCORD__TOKEN).",
        "Discord 未启用。请在设置中填写机器人令牌（discord.token 或 KVASIR_DISCORD__TOKEN）。",
    ),
    "discord_check_unreachable": (
        "Discord cannot be reached ({reason}); look at the network, discord.proxy and discord.api_base.",
        "无法连接 Discord（{reason}）；请检查网络、discord.proxy 和 discord.api_base。",
    ),
    "discord_check_bot": ("It is that of the bot «{name}».", "属于机器人“{name}”。"),
    "discord_check_intent": ("Discord: message content", "Discord：消息内容"),
    "discord_check_no_intent": (
        "Not asked for, and not needed for mentions, replies, threads and direct messages.",
        "未申请；提及、回复、话题和私信均不需要。",
    ),
    "discord_check_servers": ("Discord: servers", "Discord：服务器"),
    "discord_check_no_server": (
        "The bot is on no server yet; add it with {url}",
        "机器人尚未加入任何服务器；请通过 {url} 添加",
    ),
    "discord_check_some_servers": ("{count} server(s).", "{count} 个服务器。"),
    "discord_check_missing": (
        "On «{server}» the bot's role lacks: {missing}. Give it that under Server Settings → Roles.",
        "在“{server}”中，机器人的身份组缺少权限：{missing}。请在 服务器设置 → 身份组 中授予。",
    ),
    "discord_check_endpoint": (
        (
            "Commands and buttons go to an interactions endpoint URL; clear it under «General Information» in the "
            "developer portal, or they never reach Kvasir."
        ),
        "命令和按钮被发往 Interactions Endpoint URL；请在开发者门户的 “General Information” 中清空该项。",
    ),
    "discord_check_commands": ("Discord: commands", "Discord：命令"),
    "discord_check_no_commands": (
        "Not registered yet; «kvasir up bots» does that when it first connects.",
        "尚未注册；“kvasir up bots” 首次连接时会完成。",
    ),
    "discord_check_some_commands": ("{count} registered.", "已注册 {count} 个。"),
    "discord_check_sessions": ("Discord: connections", "Discord：连接"),
    "discord_check_few_sessions": (
        (
            "Only {left} of {total} connections are left; more are given in {minutes} min. Something makes the bot "
            "connect again and again."
        ),
        "今日连接次数仅剩 {left}/{total}，{minutes} 分钟后恢复；机器人可能在反复重连。",
    ),
    "discord_check_enough_sessions": ("{left} of {total} are left for today.", "今日剩余 {left}/{total}。"),
    "discord_check_clock": ("Discord: clock", "Discord：时钟"),
    "discord_check_skew": (
        "This machine's clock is {seconds} s off; set it by a time server.",
        "本机时钟偏差 {seconds} 秒；请与时间服务器同步。",
    ),
    # Slack
    "slack_home_kbs": ("What can be asked here", "此处可以问什么"),
    "slack_prompt": ("What is «{kb}» about?", "“{kb}”讲了什么？"),
    "slack_shared": ("Shared by {who}", "由 {who} 分享"),
    "slack_not_shared": (
        "This answer is too long to be shared from outside: invite me to the channel, and press again.",
        "该回答过长，无法从频道外分享：请先邀请我加入频道，然后再点一次。",
    ),
    "slack_installed": (
        "Kvasir is installed in «{team}». Mention it in a channel, or write to it directly.",
        "Kvasir 已安装到“{team}”。请在频道中提及它，或直接给它发消息。",
    ),
    "slack_not_installed": (
        "The installation came to nothing ({reason}). Begin it again.",
        "安装未完成（{reason}），请重新开始。",
    ),
    "ask_reason_send": ("Send", "发送"),
    "ask_reason_close": ("Cancel", "取消"),
    "slack_check_settings": ("Slack: settings", "Slack：设置"),
    "slack_check_off": (
        "Slack is off: set KVASIR_SLACK__BOT_TOKEN and KVASIR_SLACK__APP_TOKEN; bots/slack/README.md has the steps.",
        "Slack 未启用：请设置 KVASIR_SLACK__BOT_TOKEN 和 KVASIR_SLACK__APP_TOKEN；步骤见 bots/slack/README.md。",
    ),
    "slack_check_bot": ("Slack: bot token", "Slack：机器人令牌"),
    "slack_check_bot_kind": (
        "This is no bot token: one begins with xoxb- and stands under «OAuth & Permissions» of your app at Slack.",
        "这不是机器人令牌：机器人令牌以 xoxb- 开头，见 Slack 应用的“OAuth & Permissions”页。",
    ),
    "slack_check_team": ("It is that of the workspace «{team}».", "属于工作区“{team}”。"),
    "slack_check_refused": (
        "Slack refuses it ({error}): install the app to the workspace again and copy the new token.",
        "Slack 拒绝了它（{error}）：请将应用重新安装到工作区，并复制新令牌。",
    ),
    "slack_check_rights": ("Slack: rights", "Slack：权限"),
    "slack_check_scopes": (
        "These scopes are missing: {scopes}. Paste bots/slack/manifest.json as the app's manifest and install again.",
        "缺少以下权限：{scopes}。请将 bots/slack/manifest.json 粘贴为应用清单并重新安装。",
    ),
    "slack_check_time": ("Slack: clock", "Slack：时钟"),
    "slack_check_clock": (
        "This machine's clock is {seconds} s off; Slack's signatures hold for 300 s only. Set the clock.",
        "本机时钟相差 {seconds} 秒；Slack 的签名仅在 300 秒内有效，请校准时钟。",
    ),
    "slack_check_socket": ("Slack: Socket Mode", "Slack：Socket Mode"),
    "slack_check_app_kind": (
        "This is no app-level token: one begins with xapp- and is made under «Basic Information» of your app at Slack.",
        "这不是应用级令牌：应用级令牌以 xapp- 开头，在 Slack 应用的“Basic Information”页创建。",
    ),
    "slack_check_socket_refused": (
        "Slack opens no connection ({error}): Socket Mode must be on, and the token needs connections:write.",
        "Slack 未建立连接（{error}）：应用级令牌需要 connections:write 权限，并需启用 Socket Mode。",
    ),
    "slack_check_events": ("Slack: events", "Slack：事件"),
    "slack_check_http": ("They come by HTTP, to web.public_url.", "通过 HTTP 发送到 web.public_url。"),
    "slack_check_no_url": (
        "Without an app-level token, Slack must reach this machine: set KVASIR_WEB__PUBLIC_URL (https://…).",
        "没有应用级令牌时事件通过 HTTP 到达，Slack 必须能访问本机：请将 KVASIR_WEB__PUBLIC_URL 设为其 https:// 地址。",
    ),
    "slack_check_install": ("Slack: installation in many workspaces", "Slack：安装到多个工作区"),
    "slack_check_oauth": (
        "It needs KVASIR_SLACK__CLIENT_SECRET, KVASIR_SLACK__SIGNING_SECRET and KVASIR_WEB__PUBLIC_URL too.",
        "还需要 KVASIR_SLACK__CLIENT_SECRET、KVASIR_SLACK__SIGNING_SECRET 和 KVASIR_WEB__PUBLIC_URL。",
    ),
    # kvasir doctor
    "doctor_settings": ("Settings", "设置"),
    "doctor_start": ("Start", "启动"),
    "doctor_slow": ("It was not ready after {seconds} s; look at the log.", "{seconds} 秒后仍未就绪；请查看日志。"),
    "doctor_database": ("Database", "数据库"),
    "doctor_embedder": ("Embedder", "嵌入模型"),
    "doctor_loaded": ("It is loaded.", "已加载。"),
    "doctor_engine": ("Engine {name}", "引擎 {name}"),
    "doctor_works": ("It works.", "工作正常。"),
    "doctor_ocr": ("It is installed.", "已安装。"),
    "doctor_no_ocr": (
        "It is not installed; to read scans and images run: pip install 'kvasir[ocr]'",
        "未安装；要读取扫描件和图片，请运行：pip install 'kvasir[ocr]'",
    ),
    "doctor_owner": ("Administrator", "管理员"),
    "doctor_has_owner": ("There is one.", "已有。"),
    "doctor_no_owner": (
        "There is none yet; «kvasir up» prints a set-up link.",
        "还没有；运行 “kvasir up” 会给出初始化链接。",
    ),
    "doctor_kb": ("Knowledge base {name}", "知识库 {name}"),
    "doctor_kb_empty": ("It is empty.", "是空的。"),
    "doctor_kb_differs": (
        (
            "The index holds {documents} documents and {chunks} chunks, the database {rows} and {counted}; "
            "«kvasir up» puts this right, or «kvasir kb reindex {name}» builds the index anew."
        ),
        (
            "索引中有 {documents} 份文档、{chunks} 个分块，数据库中为 {rows} 和 {counted}；"
            "“kvasir up” 会自动修复，也可以用 “kvasir kb reindex {name}” 重建索引。"
        ),
    ),
    "doctor_kb_outdated": (
        "It works; «kvasir kb reindex {name}» would bring its index to the settings of today.",
        "工作正常；“kvasir kb reindex {name}” 可使索引符合当前设置。",
    ),
    "doctor_kb_good": ("{documents} documents, {chunks} chunks.", "{documents} 份文档，{chunks} 个分块。"),
    "doctor_role": ("Role {role}", "角色 {role}"),
    "doctor_role_nobody": ("No process on this machine runs it.", "本机没有进程运行该角色。"),
    "doctor_role_lives": (
        "Process {number} said {seconds} s ago that it is there.",
        "进程 {number} 在 {seconds} 秒前报告运行中。",
    ),
    "doctor_role_silent": (
        "Process {number} has said nothing for {seconds} s: it hangs, or cannot reach the database.",
        "进程 {number} 已有 {seconds} 秒没有报告：可能已卡住，或无法访问数据库。",
    ),
    "doctor_folder": ("Data directory", "数据目录"),
    "doctor_little_room": (
        "{folder} has only {megabytes} MB free; make room.",
        "{folder} 只剩 {megabytes} MB 可用空间；请腾出空间。",
    ),
    "doctor_room": ("{folder}, {gigabytes} GB free", "{folder}，可用空间 {gigabytes} GB"),
    "doctor_address": ("Web address", "网页地址"),
    "doctor_address_taken": (
        "{host}:{port} is in use; Kvasir may be up already.",
        "{host}:{port} 已被占用；Kvasir 可能已在运行。",
    ),
    "doctor_address_free": ("{host}:{port} is free", "{host}:{port} 可用"),
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
        "This set-up link is not valid any more; only the newest is. Start Kvasir again to get a new one.",
        "此初始化链接已失效，只有最新的链接有效；请重新启动 Kvasir 以获取新链接。",
    ),
    "oidc_label": ("Single sign-on", "单点登录"),
    "not_by_key": ("Do this logged in with a browser; an API key cannot.", "请在浏览器登录后操作；API 密钥无此权限。"),
    "oidc_off": (
        "No identity provider is set up; see `oidc` in the settings.",
        "未配置身份提供方，请参阅设置中的 `oidc`。",
    ),
    "oidc_refused": (
        "The identity provider's answer could not be accepted; log in again.",
        "无法接受身份提供方的应答，请重新登录。",
    ),
    "oidc_over": (
        "This login took too long or was used already; log in again.",
        "本次登录已超时或已使用，请重新登录。",
    ),
    "oidc_unknown": ("You have no account here; ask an administrator.", "您在此没有账户，请联系管理员。"),
    "oidc_away": (
        "The identity provider ({host}) does not answer; try again in a moment.",
        "身份提供方（{host}）没有响应，请稍后再试。",
    ),
    "oidc_issuer": (
        "The identity provider calls itself by another name than `oidc.issuer` ({issuer}).",
        "身份提供方自报的名称与 `oidc.issuer`（{issuer}）不一致。",
    ),
    "oidc_not_https": (
        "The identity provider's address must begin with https://: {url}",
        "身份提供方的地址必须以 https:// 开头：{url}",
    ),
    # the API's document
    "api_summary": ("Ask, manage and watch Kvasir.", "提问、管理与监控 Kvasir。"),
    "api_description": (
        (
            "Everything the console does goes through this API. Lists are pages: `limit` and `offset` in, `items` and "
            "`total` out. Errors are `application/problem+json`. Log in with a browser, or send an API key as bearer "
            "token."
        ),
        (
            "控制台的全部功能都通过此 API 完成。列表分页：传入 `limit` 与 `offset`，返回 `items` 与 `total`。"
            "错误为 `application/problem+json`。可用浏览器登录，或以 API 密钥作为 Bearer 令牌。"
        ),
    ),
    "api_key_hint": ("An API key (`kv_…`) from the page «My account».", "“我的账户”页面创建的 API 密钥（`kv_…`）。"),
    # people
    "people_not_yourself": ("You cannot delete your own account.", "您不能删除自己的账户。"),
    "invitation_over": (
        "This invitation is not valid any more; ask for a new one.",
        "此邀请已失效，请重新索取。",
    ),
    "no_invitation": ("There is no such open invitation.", "没有这份有效邀请。"),
    "no_login": ("There is no such login.", "没有这个登录会话。"),
    "role_above_yours": (
        "This role is above yours; ask an owner.",
        "该角色高于您的角色，请联系所有者。",
    ),
    "bad_right": ("A right is `ask` or `edit`.", "权限只能是 `ask`（提问）或 `edit`（编辑）。"),
    # the console
    "console_menu": ("Console", "控制台"),
    "console_error": ("This page cannot be shown", "无法显示此页面"),
    "skip_to_content": ("Skip to the content", "跳到正文"),
    "open_menu": ("Open the side panel", "打开侧边栏"),
    "close_menu": ("Close the side panel", "关闭侧边栏"),
    "group_answers": ("Answers", "回答"),
    "group_knowledge": ("Knowledge", "知识"),
    "group_operation": ("Operation", "运行"),
    "group_people": ("People", "人员"),
    "page_dashboard": ("Dashboard", "概览"),
    "page_review": ("Feedback", "反馈处理"),
    "page_conversations": ("Conversations", "对话记录"),
    "page_bases": ("Knowledge bases", "知识库"),
    "page_library": ("Documents", "文档"),
    "page_sources": ("Sources", "数据源"),
    "page_playground": ("Playground", "检索实验"),
    "page_models": ("Models", "模型"),
    "page_channels": ("Channels", "渠道"),
    "page_work": ("Jobs and schedules", "任务与定时"),
    "page_account": ("My account", "我的账户"),
    "page_reference": ("API reference", "API 文档"),
    "page_people": ("People and keys", "用户与密钥"),
    # channels
    "channel_no_setting": (
        "A channel has no setting «{name}»; there are: {there}.",
        "频道没有设置 “{name}”；可用：{there}。",
    ),
    "channel_no_engine": (
        "There is no engine «{name}»; there are: {there}.",
        "没有名为 “{name}” 的引擎；可用：{there}。",
    ),
    "channel_no_mode": ("There is no mode «{name}»; there are: {there}.", "没有模式 “{name}”；可用：{there}。"),
    "channel_no_language": (
        "Kvasir does not speak «{name}»; there are: {there}.",
        "不支持语言 “{name}”；可用：{there}。",
    ),
    "channel_bad_person": (
        "«{person}» names nobody; give keys or ids without spaces.",
        "“{person}” 不是有效的人员标识；请给出不含空格的标识。",
    ),
    "channel_many_people": ("At most {most} people can be named.", "最多可指定 {most} 人。"),
    "channel_one_name": ("Only one place at a time can be named.", "一次只能为一个位置命名。"),
    "channel_bad_value": ("The value for «{name}» is of the wrong kind.", "“{name}”的值类型不对。"),
    "no_manifest": ("This platform takes no manifest.", "该平台不需要清单文件。"),
    "channel_bad_place": (
        "«{place}» is no place; say PLATFORM, PLATFORM:WORKSPACE or PLATFORM:WORKSPACE:CHANNEL, e.g. slack:T1:C9.",
        "“{place}” 不是有效的位置；请写 平台、平台:工作区 或 平台:工作区:频道，例如 slack:T1:C9。",
    ),
    "channel_no_platform": ("There is no platform «{name}»; there are: {there}.", "没有平台 “{name}”；可用：{there}。"),
    "channel_nothing_to_set": ("Say what to set; --help lists it.", "请说明要设置什么；用 --help 查看。"),
    "channel_not_set": (
        "Nothing is set for «{place}»; «kvasir channel list» shows what is.",
        "“{place}” 没有任何设置；用 “kvasir channel list” 查看已有设置。",
    ),
    "channel_was_set": ("{place}: {values}.", "{place}：{values}。"),
    "channel_was_unbound": ("All that was set for «{place}» is forgotten.", "已清除 “{place}” 的全部设置。"),
    "channel_private_kb": (
        ("«{kb}» is private: it answers only in direct messages, and only those whom «kvasir kb allow» let in."),
        "“{kb}”是私有知识库：仅在私信中回答，且仅限经 “kvasir kb allow” 授权的人。",
    ),
    "prompt_file_unreadable": ("The file {file} cannot be read: {reason}.", "无法读取文件 {file}：{reason}。"),
    # secrets that are kept
    "vault_short_key": (
        (
            "The secret key has fewer than {least} characters; set KVASIR_SECRET_KEY to a longer one, e.g. from "
            "«openssl rand -base64 32», or leave it empty for one in {file}."
        ),
        (
            "密钥少于 {least} 个字符；请将 KVASIR_SECRET_KEY 设为更长的值"
            "（例如 “openssl rand -base64 32” 的输出），或留空以使用 {file}。"
        ),
    ),
    "vault_no_key": (
        "The secret key {file} cannot be read or made ({reason}); check the folder, or set KVASIR_SECRET_KEY.",
        "无法读取或创建密钥文件 {file}（{reason}）；请检查该文件夹，或设置 KVASIR_SECRET_KEY。",
    ),
    "vault_other_key": (
        (
            "A kept token was encrypted with another secret key; put back the former KVASIR_SECRET_KEY or {file}, "
            "or connect the workspace again."
        ),
        "保存的令牌是用另一个密钥加密的；请恢复原来的 KVASIR_SECRET_KEY 或 {file}，或重新连接该工作区。",
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
    # the API that speaks as OpenAI's does
    "no_such_model": (
        "There is no model named «{name}», or you may not use it; GET /v1/models lists those there are.",
        "没有名为“{name}”的模型，或您无权使用；GET /v1/models 列出可用的模型。",
    ),
    "messages_long": (
        "The messages are longer than the context of the model «{model}», which is {most} tokens.",
        "消息超过模型“{model}”的上下文长度（{most} 个 token）。",
    ),
    "api_unsupported": ("Kvasir cannot do this; leave it out.", "Kvasir 不支持此项，请去掉。"),
    "api_only_text": (
        "Only text is read: no images, sound, files or results of tools.",
        "只支持文本，不支持图片、声音、文件或工具结果。",
    ),
    "api_last_message": (
        "The last message must be the user's, with some text in it.",
        "最后一条消息必须来自用户，且包含文字。",
    ),
    "api_one_prompt": ("Send one prompt, as text.", "请只发送一段文本提示词。"),
    "api_token_arrays": (
        "Send texts, not arrays of tokens: the vocabulary here is another one.",
        "请发送文本，而不是 token 数组：此处使用不同的词表。",
    ),
    "api_inputs_empty": ("Send at least one text, and none that is empty.", "请至少发送一段文本，且不能为空。"),
    "api_inputs_many": ("Send at most {most} texts at once.", "一次最多发送 {most} 段文本。"),
    "api_input_long": (
        "Text {n} is longer than {most} characters; send it in parts.",
        "第 {n} 段文本超过 {most} 个字符，请分段发送。",
    ),
    "api_dimensions": ("The vectors have {dimension} numbers, no others.", "向量维度固定为 {dimension}。"),
    "api_no_embedder": ("There is no embedding model now: {reason}", "目前没有嵌入模型：{reason}"),
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
    "bad_public_url": (
        "web.public_url is «{url}»; give the whole address that people open, such as https://ask.example.org",
        "web.public_url 的值为“{url}”；请填写完整的访问地址，例如 https://ask.example.org",
    ),
    "bad_proxy": (
        "web.trusted_proxies holds «{text}», which is no IP address or network such as 10.0.0.0/8",
        "web.trusted_proxies 中的“{text}”不是 IP 地址或网段（例如 10.0.0.0/8）",
    ),
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
    "database_busy": (
        "Kvasir's database does not answer just now; try again in a moment.",
        "Kvasir 的数据库暂时没有响应，请稍后再试。",
    ),
    # fetching an address
    "fetch_bad_url": (
        "«{url}» is not an address Kvasir fetches; give a plain http or https one.",
        "“{url}”不是可以抓取的地址；请提供普通的 http 或 https 地址。",
    ),
    "fetch_private": (
        (
            "«{host}» is inside a private network; Kvasir fetches only from the public internet, and for sources from "
            "hosts that the setting sources.private_hosts names."
        ),
        "“{host}”位于私有网络中；Kvasir 只抓取公共互联网，数据源还可抓取设置 sources.private_hosts 列出的主机。",
    ),
    "fetch_unknown_host": (
        "There is no host named «{host}»; check the address.",
        "找不到主机“{host}”，请检查地址。",
    ),
    "fetch_slow": (
        "«{url}» did not arrive within {seconds} seconds; try again later.",
        "“{url}”未能在 {seconds} 秒内取得，请稍后再试。",
    ),
    "fetch_failed": ("«{url}» cannot be fetched: {reason}", "无法抓取“{url}”：{reason}"),
    "fetch_status": (
        "«{url}» answered with status {status}; check that it can be read without a login.",
        "“{url}”返回状态 {status}；请确认无需登录即可访问。",
    ),
    "fetch_hops": (
        "«{url}» leads on to other addresses more than {most} times; give the last of them.",
        "“{url}”重定向超过 {most} 次；请直接提供最终地址。",
    ),
    "fetch_large": (
        "«{url}» is larger than {most} MB, the most that is accepted.",
        "“{url}”超过允许的最大大小 {most} MB。",
    ),
    "fetch_encoding": (
        "The server packed the page in a way Kvasir does not read ({encoding}); ingest it as a file.",
        "服务器使用了 Kvasir 无法读取的压缩方式（{encoding}）；请以文件形式导入。",
    ),
    # API keys
    "key_needs_scope": ("An API key needs at least one scope.", "API 密钥至少需要一个权限范围。"),
    "no_key": ("There is no API key «{id}» in use.", "没有正在使用的 API 密钥“{id}”。"),
    # the openai engine
    "engine_no_connection": (
        "Cannot connect to the language model's server at {host}; is it running, and is its address right?",
        "无法连接语言模型服务器 {host}；请确认它正在运行，且地址填写正确。",
    ),
    "engine_key": (
        "The language model's server at {host} does not accept the key; set the right one.",
        "语言模型服务器 {host} 不接受该密钥；请填写正确的密钥。",
    ),
    "engine_no_model": (
        "The server at {host} has no model «{model}»; check the name of the model, and the address.",
        "服务器 {host} 上没有模型“{model}”；请检查模型名称和地址。",
    ),
    "search_slow": (
        "The search took too long; try again in a moment.",
        "搜索用时过长，请稍后再试。",
    ),
    "no_vectors": (
        "Search by vectors needs the embedding model and an index made with it; search by keywords until then.",
        "向量搜索需要嵌入模型以及用它建立的索引；在此之前请按关键词搜索。",
    ),
    "eval_unreadable": (
        "The file {file} cannot be read; name a JSONL file in UTF-8.",
        "无法读取文件 {file}，请指定一个 UTF-8 编码的 JSONL 文件。",
    ),
    "eval_line": (
        'Line {line} of {file} cannot be used; each line must be {"question": "…", "answers": ["…"], "document": "…"}.',
        '{file} 的第 {line} 行无法使用；每一行都应为 {"question": "…", "answers": ["…"], "document": "…"}。',
    ),
    "eval_empty": (
        "The file {file} has no questions; write one JSON object a line.",
        "文件 {file} 中没有问题；请每行写一个 JSON 对象。",
    ),
    "eval_set_name": (
        "Give the set a name of 1 to 100 characters.",
        "请为评测集起一个 1 到 100 个字符的名称。",
    ),
    "eval_set_exists": (
        "There is an evaluation set named «{name}» for this knowledge base already; choose another name.",
        "此知识库已有名为“{name}”的评测集；请换一个名称。",
    ),
    "no_eval_set": ("There is no such evaluation set.", "没有这个评测集。"),
    "no_eval_set_named": (
        "The knowledge base «{kb}» has no evaluation set named «{name}»; there are: {there}.",
        "知识库“{kb}”没有名为“{name}”的评测集；现有：{there}。",
    ),
    "no_eval_sets": (
        "The knowledge base «{kb}» has no evaluation sets yet; make one in the console, under Playground.",
        "知识库“{kb}”还没有评测集；请在控制台的“检索实验”页面新建一个。",
    ),
    "no_eval_question": ("There is no such question in this set.", "这个评测集中没有该问题。"),
    "eval_question_exists": (
        "This question is in the set already; change it there.",
        "该问题已在这个评测集中；请在那里修改。",
    ),
    "eval_question_long": (
        "A question has at most {most} characters, and at most {answers} expected texts of {length} characters.",
        "问题最多 {most} 个字符；期望文本最多 {answers} 条，每条最多 {length} 个字符。",
    ),
    "eval_set_full": (
        "A set holds at most {most} questions; make another one.",
        "一个评测集最多包含 {most} 个问题；请另建一个。",
    ),
    "eval_set_empty": (
        "The set has no questions yet; add some, then run it.",
        "评测集中还没有问题；请先添加问题再运行。",
    ),
    "eval_already": (
        "This set is being run; wait until that is done, or stop it.",
        "该评测集正在运行；请等它完成或将其停止。",
    ),
    "no_eval_run": ("There is no such run.", "没有这次运行记录。"),
    "eval_result": (
        (
            "{n} questions: the right document came first in {first} and among the first five in {five} of 100, "
            "{problems} had a problem."
        ),
        "共 {n} 个问题：正确文档排第一的占 {first}%，进入前五的占 {five}%，{problems} 个有问题。",
    ),
    "no_generation": ("This knowledge base has no such index.", "该知识库没有这个索引。"),
    "engine_context": (
        (
            "Question and passages are too long for the model «{model}»; lower its context size to what its "
            "server allows."
        ),
        "问题和段落超出了模型“{model}”的上下文长度；请把上下文长度调低到服务器允许的值。",
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
        ("The server at {host} points to {target}; set the final address, since the key is not sent elsewhere."),
        "服务器 {host} 指向了 {target}；请填写最终地址，因为密钥不会发往别处。",
    ),
    "engine_garbage": (
        "The server at {host} does not answer like an OpenAI-compatible one; check its address.",
        "服务器 {host} 的回应不符合 OpenAI 兼容格式；请检查地址。",
    ),
    "engine_other_dialect": (
        "The server at {host} does not answer as this engine expects; check its address.",
        "服务器 {host} 的回应不符合此引擎的格式；请检查地址。",
    ),
    "engine_broke": (
        "The connection to the language model at {host} broke before the answer was complete; ask again.",
        "与语言模型 {host} 的连接在回答完成之前中断，请重新提问。",
    ),
    "engine_slow": (
        (
            "The language model at {host} did not begin to answer within {seconds} s; ask again, or raise "
            "the time that it may take (`first_token_timeout_seconds`)."
        ),
        (
            "语言模型 {host} 在 {seconds} 秒内没有开始回答；请重新提问，或调高 "
            "等待首个字的时限（first_token_timeout_seconds）。"
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
    # models in processes of their own
    "worker_crashed": (
        "The model's process ended by itself ({reason}); a fresh one takes its place.",
        "模型进程意外结束（{reason}），正在启动新的进程。",
    ),
    "worker_hung": (
        "The model made no headway for {seconds} s, so its process was ended; a fresh one takes its place.",
        "模型在 {seconds} 秒内毫无进展，其进程已被结束，正在启动新的进程。",
    ),
    "worker_memory": (
        "The model ran out of memory; a fresh process takes its place. Ask for less, or lower its context size.",
        "模型内存不足，正在启动新的进程。请缩短提问，或调低上下文长度。",
    ),
    "worker_poisoned": (
        "The model's library failed beyond repair; a fresh process takes its place.",
        "模型运行库发生无法恢复的错误，正在启动新的进程。",
    ),
    "worker_signal": ("signal {signal}", "信号 {signal}"),
    "worker_status": ("exit status {status}", "退出码 {status}"),
    "worker_cannot_load": ("The model cannot be loaded. {said}", "无法加载模型：{said}"),
    "worker_too_large": (
        "There is not enough memory to load the model: {said} Lower its context size, or choose a smaller one.",
        "内存不足，无法加载模型：{said}请调低上下文长度，或换用更小的模型。",
    ),
    "worker_slow_load": (
        "The model was not loaded within {seconds} s; raise its start timeout, or choose a smaller one.",
        "模型在 {seconds} 秒内没有加载完成；请调高启动时限，或换用更小的模型。",
    ),
    "worker_gave_up": (
        (
            "The model failed {times} times within ten minutes and is left alone now; load it again when the cause "
            "is gone. The last: {why} Its last lines: {lines}"
        ),
        "模型在十分钟内失败了 {times} 次，已停止重试；排除原因后请重新加载。最后一次：{why}最后的日志：{lines}",
    ),
    "worker_interrupted": (
        "The answer was interrupted. {why} Ask again.",
        "回答被中断。{why}请重新提问。",
    ),
    "worker_over_question": (
        "The model failed {times} times over this question. {why} Ask in other words, or for less.",
        "模型在处理该问题时失败了 {times} 次。{why}请换一种说法，或缩短提问。",
    ),
    "worker_not_ready": (
        "The model is being loaded; ask again in a moment.",
        "模型正在加载，请稍后再问。",
    ),
    "worker_lost": (
        "The connection to the model's process broke.",
        "与模型进程的连接中断。",
    ),
    "worker_no_start": (
        "The model's process cannot be started with {python}: {reason}",
        "无法用 {python} 启动模型进程：{reason}",
    ),
    "worker_no_room": (
        (
            "The model needs about {needed} GB of {memory}, and {free} GB are free; choose a smaller one or another "
            "quantization, or unload another model."
        ),
        "该模型约需 {needed} GB {memory}，目前空闲 {free} GB；请选用更小的模型或其他量化版本，或先卸载别的模型。",
    ),
    "worker_ram": ("memory", "内存"),
    "worker_vram": ("video memory", "显存"),
    "worker_not_alone": (
        "Another model that is set to be alone is still loaded; unload it first.",
        "另一个设为“独占”的模型仍在加载状态；请先卸载它。",
    ),
    "worker_remote": (
        "The worker at {host} cannot be used: {reason}",
        "无法使用 {host} 上的模型进程：{reason}",
    ),
    "worker_needs_key": (
        (
            "A worker that others can reach needs a key of at least {least} characters: set KVASIR_WORKER__API_KEY, or "
            "let it listen on 127.0.0.1."
        ),
        "供其他机器访问的工作进程需要至少 {least} 个字符的密钥：请设置 KVASIR_WORKER__API_KEY，或只监听 127.0.0.1。",
    ),
    "worker_kinds": (
        "«{kind}» runs in no worker; there are: {kinds}.",
        "“{kind}”不在工作进程中运行；可用的有：{kinds}。",
    ),
    "worker_serves": (
        "{model} answers at {url}, up to {parallel} at a time. In Kvasir, set base_url of {kind} to it.",
        "{model} 在 {url} 提供服务，最多同时回答 {parallel} 个。请在 Kvasir 中把 {kind} 的 base_url 设为该地址。",
    ),
    "worker_has_vectors": (
        "{model} answers at {url}, with {dimension} dimensions.",
        "{model} 在 {url} 提供服务，向量维度为 {dimension}。",
    ),
    "doctor_no_model": (
        "Its model is not at {path}; set model_path to the right folder or file.",
        "模型不在 {path}；请把 model_path 设为正确的文件夹或文件。",
    ),
    "doctor_model": ("{path} is there, {gigabytes} GB.", "{path} 存在，{gigabytes} GB。"),
    "model_busy": (
        "The model «{name}» is busy: {most} questions are with it already. Ask again in a moment.",
        "模型“{name}”繁忙：已有 {most} 个问题。请稍后再试。",
    ),
    "worker_unloaded": ("The model was unloaded.", "模型已卸载。"),
    "model_turn": ("Waiting for another model to end", "正在等待另一个模型结束"),
    "worker_no_model": (
        "Set model_path of {adapter} to the model's folder or file, or base_url to the address of its worker.",
        "请把 {adapter} 的 model_path 设为模型的文件夹或文件，或把 base_url 设为其工作进程的地址。",
    ),
    "embed_pools_otherwise": (
        "builtin cannot pool by the last token; use sentence-transformers or fastembed for this model.",
        "builtin 不能按最后一个 token 池化；请用 sentence-transformers 或 fastembed 运行此模型。",
    ),
    "worker_no_model_dir": (
        "Set model_dir of {adapter} to the model's folder, or base_url to the address of its worker.",
        "请把 {adapter} 的 model_dir 设为模型的文件夹，或把 base_url 设为其工作进程的地址。",
    ),
    # the scripted engine
    "scripted_reply": (
        "This is a scripted reply to «{question}»; of {n} passages it cites the first [1].",
        "这是对“{question}”的预设回复；共有 {n} 段资料，引用第一段 [1]。",
    ),
    "scripted_failed": (
        "The scripted engine failed, as its settings want it to.",
        "预设引擎已按设置中断。",
    ),
    # answers
    "refusal": (
        "I found nothing about this in {kbs}. Try other words, or name the thing you mean.",
        "我在{kbs}中没有找到相关内容。请换一种说法，或说出您所指的具体事物。",
    ),
    "prompt_unreadable": (
        "The instructions in {file} cannot be read; check KVASIR_ANSWER__PROMPT_FILE.",
        "无法读取 {file} 中的提示词；请检查 KVASIR_ANSWER__PROMPT_FILE。",
    ),
    "quoted_notice": (
        "Quoted from your documents; no language model is configured.",
        "摘自您的文档原文；未配置语言模型。",
    ),
    "fallback_notice": (
        "«{first}» was not available; «{engine}» answered.",
        "“{first}”暂不可用，本回答由“{engine}”生成。",
    ),
    "fallback_quoted_notice": (
        "«{first}» was not available; this is quoted from your documents.",
        "“{first}”暂不可用，以下摘自您的文档原文。",
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
    "no_kb_of": (
        "There is no knowledge base named «{name}», or you may not use it; there are: {there}.",
        "没有名为“{name}”的知识库，或您无权使用；现有：{there}。",
    ),
    "no_such_answer": ("There is no such answer, or it is not yours.", "没有此回答，或它不属于您。"),
    "reason_long": ("A reason has at most {most} characters.", "理由最多 {most} 个字符。"),
    "export_suffix": (
        "Name a file that ends in .csv or .jsonl.",
        "请指定以 .csv 或 .jsonl 结尾的文件。",
    ),
    "export_unwritable": ("{file} cannot be written: {reason}.", "无法写入 {file}：{reason}。"),
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
    "queued": ("You are number {place} in the queue…", "排队中，您排在第 {place} 位……"),
    "queue_full": (
        "Too many questions are waiting; ask again in a moment.",
        "等待中的问题太多，请稍后再问。",
    ),
    # chat platforms
    "reading_passages": ("Reading {count} passages…", "正在阅读 {count} 段资料……"),
    "reading_files": ("Reading {count} file(s)…", "正在读取 {count} 个文件……"),
    "files_read": (
        "I have read {count} file(s). What would you like to know?",
        "已读取 {count} 个文件。您想了解什么？",
    ),
    "answer_stopped": ("Stopped.", "已停止。"),
    "question_too_old": (
        "I was away when you asked this; ask again if you still want to know.",
        "您提问时我不在线；如仍需要答案，请再问一次。",
    ),
    "kb_private_here": (
        "What is known here is private: ask me in a direct message, if you were let in.",
        "此处的知识库是私有的；如已获授权，请私信我提问。",
    ),
    "quota_person": (
        "You have asked a lot in the last minute; go on in a moment.",
        "您在过去一分钟内提问过多，请稍后再继续。",
    ),
    "quota_channel": (
        "A lot was asked in this channel in the last minute; go on in a moment.",
        "本频道在过去一分钟内提问过多，请稍后再继续。",
    ),
    "not_our_message": (
        "This message is none of my answers, or a very old one.",
        "这条消息不是我的回答，或已过于久远。",
    ),
    "only_the_asker": ("Only whoever asked may do this.", "只有提问者可以这样做。"),
    "nothing_to_stop": ("This answer is complete already.", "该回答已完成。"),
    "still_working": ("I am still answering this.", "我仍在回答这个问题。"),
    "thanks_up": ("Thank you! Noted as helpful.", "谢谢！已记为有帮助。"),
    "thanks_down": ("Thank you! Noted as not helpful.", "谢谢！已记为没有帮助。"),
    "thanks_withdrawn": ("Your rating was taken back.", "您的评价已撤回。"),
    "rating_not_kept": ("This answer cannot be rated any more.", "该回答已无法评价。"),
    "human_nobody": (
        "No helpers are named for this channel; «helpers» sets them.",
        "本频道未指定协助者；可用 helpers 命令设置。",
    ),
    "human_wanted": (
        "{name} would like a human to look at this: «{question}»",
        "{name} 希望有人来看看这个问题：“{question}”",
    ),
    "human_called": ("I have called the helpers of this channel.", "已通知本频道的协助者。"),
    "human_called_before": ("The helpers were called for this already.", "已为此问题通知过协助者。"),
    "human_not_called": (
        "The helpers could not be called just now; try again in a moment.",
        "暂时无法通知协助者，请稍后再试。",
    ),
    "human_resolved": ("Marked as solved.", "已标记为解决。"),
    "human_resolved_before": ("This is solved already.", "该问题已解决。"),
    "curated_empty": ("There is no question or no text to keep.", "没有可保存的问题或内容。"),
    "curated_long": ("An answer to keep has at most {most} characters.", "要保存的回答最多 {most} 个字符。"),
    "curated_by": ("Answered by {name} on {day}.", "由 {name} 于 {day} 回答。"),
    "curated_no_question": ("Nothing was asked here yet.", "这里还没有人提问。"),
    "curated_title": ("Curated answer", "人工回答"),
    "curated_notice": ("This answer was written by a person for this question.", "此回答由人工针对该问题撰写。"),
    "curated_marked": (
        "This answer was written by a person; a document it rests on has changed since, and it is to be checked.",
        "此回答由人工撰写；其依据的文档后来有变动，回答正待复核。",
    ),
    "no_such_review": (
        "There is no such answer to review; it may have been deleted.",
        "没有这条待审核的回答，可能已被删除。",
    ),
    "review_bad_assignee": (
        "It can only be given to an active account that may review.",
        "只能分配给有审核权限的有效账号。",
    ),
    "review_bad_state": ("A review is new, working or solved.", "审核状态只能是 new、working 或 solved。"),
    "review_bad_label": ("There is no such label.", "没有这个标签。"),
    "review_bad_cure": ("There is no such cure.", "没有这种处理方式。"),
    "review_note_long": ("A note has at most {most} characters.", "备注最多 {most} 个字符。"),
    "review_no_kb": (
        "None of the knowledge bases it was asked of is there any more, or you may not ask them.",
        "当时提问的知识库已不存在，或者您没有提问权限。",
    ),
    "review_nowhere": (
        "It was not asked on a chat platform, so there is no thread to post in.",
        "该问题不是在聊天平台上提出的，没有可回复的会话。",
    ),
    "review_empty_document": ("Give the document a name and some text.", "请填写文档名称和内容。"),
    "curated_question_long": ("A question has at most {most} characters.", "问题最多 {most} 个字符。"),
    "curated_paraphrases": ("At most {most} paraphrases are kept.", "最多保存 {most} 种其他问法。"),
    "curated_past": ("The date of expiry has passed already; choose a later one.", "到期日期已过，请选择更晚的日期。"),
    "curated_twice": (
        "There is a curated answer to «{question}» already; change that one.",
        "“{question}”已有人工回答，请修改原有的那一条。",
    ),
    "curated_text_or_file": ("Give the answer with --text or with --file.", "请用 --text 或 --file 给出回答。"),
    "curated_not_text": ("{file} holds no text.", "{file} 不是文本文件。"),
    "curated_added": ("Kept in «{kb}» as {id}; it is given from now on.", "已存入“{kb}”（{id}），即刻生效。"),
    "curated_delete_sure": ("Delete the curated answer to «{question}»?", "删除“{question}”的人工回答？"),
    "curated_deleted": ("The curated answer is deleted.", "已删除这条人工回答。"),
    "no_such_curated": ("There is no such curated answer.", "没有这条人工回答。"),
    "curated_changed": ("«{name}» has changed since it was written.", "“{name}”在撰写之后有变动。"),
    "curated_gone": ("«{name}» was deleted.", "“{name}”已被删除。"),
    "curated_gone_nameless": ("A document it rests on was deleted.", "其依据的一份文档已被删除。"),
    "curated_removed": (
        "Its document was deleted from the library; switch it on to use it again.",
        "它的文档已从文档库中删除；重新启用即可恢复使用。",
    ),
    "curated_checked": (
        "Curated answers: {expired} expired, {marked} marked for review.",
        "人工回答：{expired} 条到期，{marked} 条待复核。",
    ),
    "curated_kept": ("Kept in «{kb}»; it answers the next such question.", "已存入“{kb}”，今后类似问题将据此回答。"),
    "telegram_bad_token": (
        "telegram.token is no token of a bot; BotFather gives one such as 123456:ABC-…",
        "telegram.token 不是机器人令牌；请向 BotFather 获取，形如 123456:ABC-…",
    ),
    "telegram_bad_proxy": (
        "telegram.proxy cannot be used; give http://host:port or socks5://host:port.",
        "telegram.proxy 无法使用；请填写 http://主机:端口 或 socks5://主机:端口。",
    ),
    "telegram_no_public_url": (
        "telegram.webhook needs web.public_url, the https address at which Telegram reaches Kvasir.",
        "telegram.webhook 需要 web.public_url，即 Telegram 访问 Kvasir 的 https 地址。",
    ),
    "telegram_file_too_big": (
        "Telegram gives bots no files above 20 MB; «{name}» is larger. A local Bot API server gives all.",
        "Telegram 不向机器人提供超过 20 MB 的文件，“{name}”过大；可改用本地 Bot API 服务器。",
    ),
    "telegram_check_token": ("Telegram: token", "Telegram：令牌"),
    "telegram_check_off": (
        "Telegram is off: set KVASIR_TELEGRAM__TOKEN to the token that BotFather gives.",
        "Telegram 未启用：请将 KVASIR_TELEGRAM__TOKEN 设为 BotFather 提供的令牌。",
    ),
    "telegram_check_refused": (
        "Telegram refuses the token ({error}); take the current one from BotFather: /mybots, API Token.",
        "Telegram 拒绝了该令牌（{error}）；请在 BotFather 的 /mybots 中查看当前的 API Token。",
    ),
    "telegram_check_reach": ("Telegram: connection", "Telegram：连接"),
    "telegram_check_unreachable": (
        "The Bot API does not answer ({error}); where Telegram is blocked, set telegram.proxy.",
        "Bot API 没有响应（{error}）；如 Telegram 被屏蔽，请设置 telegram.proxy。",
    ),
    "telegram_check_bot": ("the bot is @{name}", "机器人为 @{name}"),
    "telegram_check_groups": ("Telegram: groups", "Telegram：群组"),
    "telegram_check_no_groups": (
        "The bot cannot be added to groups; allow it at BotFather: /setjoingroups.",
        "机器人无法加入群组；请在 BotFather 用 /setjoingroups 允许。",
    ),
    "telegram_check_privacy": (
        "privacy mode is on: mentions, replies and commands arrive, which is enough; reactions need an administrator",
        "隐私模式已开启：可收到提及、回复和命令，已足够；接收表情回应需要管理员权限",
    ),
    "telegram_check_reads_all": (
        "privacy mode is off: the bot reads everything said in its groups, which only the mode «auto» needs",
        "隐私模式已关闭：机器人会收到群内所有消息，仅 auto 模式需要",
    ),
    "telegram_check_guests": ("Telegram: guest mode", "Telegram：访客模式"),
    "telegram_check_guest": (
        "on: the bot answers where it is mentioned as a guest",
        "已开启：在未加入的聊天中被提及也会回答",
    ),
    "telegram_check_no_guest": ("off; BotFather can turn it on", "未开启；可在 BotFather 中开启"),
    "telegram_check_updates": ("Telegram: updates", "Telegram：更新"),
    "telegram_check_polling": ("by polling; no webhook stands in the way", "长轮询；没有其他 webhook"),
    "telegram_check_other_hook": (
        "A webhook is set to {url}; Kvasir removes it when it starts, so another program there hears nothing more.",
        "已设置 webhook {url}；Kvasir 启动时会将其移除，使用它的其他程序将不再收到消息。",
    ),
    "telegram_check_hook": ("Telegram calls {url}", "Telegram 会调用 {url}"),
    "telegram_check_hook_unset": (
        "Telegram does not call {url} yet; that is set when Kvasir starts.",
        "Telegram 尚未调用 {url}；将在 Kvasir 启动时设置。",
    ),
    "telegram_check_hook_error": (
        "Telegram cannot deliver: {error}; {count} updates wait. Look at the proxy in front of telegram.webhook_port.",
        "Telegram 无法投递：{error}；有 {count} 条更新在等待。请检查 telegram.webhook_port 前的代理。",
    ),
    "telegram_check_time": ("Telegram: clock", "Telegram：时钟"),
    "telegram_check_clock": (
        "This machine's clock is {seconds} s off, so questions look older or newer than they are. Set the clock.",
        "本机时钟相差 {seconds} 秒，会误判提问时间，请校准时钟。",
    ),
    "telegram_check_allowed": ("Telegram: who may ask", "Telegram：可提问者"),
    "telegram_check_everybody": (
        "everybody who finds the bot; telegram.allowed limits that to users and chats",
        "任何找到机器人的人；可用 telegram.allowed 限定用户和聊天",
    ),
    "telegram_check_some": ("only those in telegram.allowed", "仅 telegram.allowed 中的用户和聊天"),
    "telegram_guest_cut": (
        "The answer is longer than a guest may write; write to me directly for all of it.",
        "回答超出了访客消息的长度；请私信我查看全文。",
    ),
    "reason_wrong": ("It is wrong", "内容有误"),
    "reason_outdated": ("It is out of date", "内容过时"),
    "reason_incomplete": ("Something is missing", "不够完整"),
    "reason_sources": ("The sources do not fit", "来源不符"),
    "telegram_unreadable": ("I read texts, documents and pictures.", "我只能阅读文字、文档和图片。"),
    "telegram_menu_ask": ("Ask a question", "提问"),
    "telegram_menu_kb": ("What can be asked here; kb NAME chooses", "此处可问的内容；kb 名称 可选择"),
    "telegram_menu_status": ("How I answer here", "此处的回答方式"),
    "telegram_menu_help": ("What I can do", "使用说明"),
    "telegram_menu_stop": ("Stop the answer that is being written", "停止正在生成的回答"),
    "telegram_menu_keep": ("Keep the message you reply to as an answer", "将所回复的消息存为标准答案"),
    "file_not_sent": ("«{name}» could not be fetched from the chat.", "无法从聊天平台获取“{name}”。"),
    "chat_help": (
        (
            "Mention me with a question, or write to me directly; I answer from the documents I was given, with "
            "sources. Rate answers with 👍 or 👎: it teaches me.\n"
            "- ask QUESTION\n- kb – what can be asked here\n- status – how I answer here\n"
            "For whoever looks after the channel:\n"
            "- kb NAME[, NAME] – answer from these\n- model NAME, prompt TEXT\n"
            "- mode mention|auto|off – answer mentions, also other questions, or nothing\n"
            "- language en|zh, feedback on|off, followups on|off\n- helpers ID…, managers KEY…\n- reset\n"
            "«default» in the place of a value sets it back."
        ),
        (
            "提及我并提问，或直接给我发消息；我根据已有文档回答并注明来源。请用 👍 或 👎 评价回答，帮助我改进。\n"
            "- ask 问题\n- kb – 此处可以问什么\n- status – 此处的回答方式\n"
            "频道管理者还可使用：\n"
            "- kb 名称[, 名称] – 指定知识库\n- model 名称、prompt 提示词\n"
            "- mode mention|auto|off – 只答提及、也答其他问题，或不回答\n"
            "- language en|zh、feedback on|off、followups on|off\n"
            "- digest daily|weekly|off – 发布提问摘要\n"
            "- helpers 成员…、managers 成员键…、askers 成员… – 协助者、管理者、可提问者\n- reset 全部恢复默认\n"
            "用 default 作为值可恢复默认。"
        ),
    ),
    "no_platform_on": (
        (
            "No chat platform is connected yet. Connect one in the console under Channels, or with «kvasir connection "
            "set»; this process takes it up at once."
        ),
        "尚未连接聊天平台。请在控制台的“渠道”页或用 “kvasir connection set” 连接，本进程会立即接管。",
    ),
    "chat_reset": ("All is as it was at first here.", "此处的设置已全部恢复默认。"),
    "chat_changed": ("Changed. Here it is now:", "已更改。当前设置："),
    "chat_command_unknown": (
        "There is no command «{name}»; «help» shows those there are.",
        "没有命令“{name}”；help 可查看全部命令。",
    ),
    "chat_not_manager": (
        "Only whoever looks after this channel may do this.",
        "只有本频道的管理者可以这样做。",
    ),
    "chat_needs_value": (
        "Say what «{name}» is to be; «default» sets it back.",
        "请给出 {name} 的值；default 可恢复默认。",
    ),
    "chat_prompt_long": ("A prompt has at most {most} characters.", "提示词最多 {most} 个字符。"),
    "chat_on_or_off": ("«{name}» is on or off.", "{name} 只能是 on 或 off。"),
    "chat_on": ("on", "开"),
    "chat_off": ("off", "关"),
    "chat_mode_mention": ("mentions only", "仅回答提及"),
    "chat_mode_auto": ("mentions, and other questions I can answer", "回答提及，以及其他我能回答的问题"),
    "chat_mode_off": ("silent", "不回答"),
    "chat_status_kbs": ("Knowledge bases: {kbs}", "知识库：{kbs}"),
    "chat_status_model": ("Model: {model}", "模型：{model}"),
    "chat_status_mode": ("I answer: {mode}", "回答方式：{mode}"),
    "chat_status_follow_ups": ("In my threads without a mention: {value}", "在我参与的话题中免提及回答：{value}"),
    "chat_status_feedback": ("Thumbs under answers: {value}", "回答下的评价按钮：{value}"),
    "chat_status_askers": ("I answer only: {people}", "只回答：{people}"),
    "chat_status_digest": ("Summary: {digest}", "摘要：{digest}"),
    "not_among_askers": ("In this channel I answer only some people.", "在本频道我只回答部分成员。"),
    "channel_no_digest": ("There is no digest «{name}»; there are: {there}.", "没有摘要周期“{name}”；可用：{there}。"),
    "digest_title_daily": ("What was asked here since yesterday", "昨天以来的提问"),
    "digest_title_weekly": ("What was asked here this week", "本周的提问"),
    "digest_counts": (
        "Questions: {asked} · answered: {answered} · 👍 {up} · 👎 {down}",
        "提问 {asked} 个 · 已回答 {answered} 个 · 👍 {up} · 👎 {down}",
    ),
    "digest_all_daily": ("What was asked since yesterday", "昨天以来的全部提问"),
    "digest_all_weekly": ("What was asked this week", "本周的全部提问"),
    "digest_down": ("These answers were rated 👎:", "以下问题的回答收到了 👎："),
    "digest_posted": (
        "Summaries on their way: {posted}; places where nothing was asked: {quiet}.",
        "已提交摘要 {posted} 份；{quiet} 处没有提问。",
    ),
    "digest_bad_place": (
        "«{place}» names no channel; write platform:workspace:channel, e.g. slack:T1:C9.",
        "“{place}”不是频道；请写成 平台:工作区:频道，例如 slack:T1:C9。",
    ),
    "digest_schedule_daily": ("Daily summaries for the channels that want one", "为订阅的频道发布每日摘要"),
    "digest_schedule_weekly": ("Weekly summaries for the channels that want one", "为订阅的频道发布每周摘要"),
    "schedule_digest": ("Summary of questions", "提问摘要"),
    "schedule_digest_about": (
        "Posts what was asked, with open questions and 👎, in a channel; without a channel, in all that want one.",
        "在频道中发布提问情况，列出未能回答和收到 👎 的问题；未指定频道时，发布到所有订阅的频道。",
    ),
    "schedule_digest_period": ("Period it is about", "涵盖时段"),
    "schedule_digest_place": ("Channel", "频道"),
    "schedule_digest_everything": ("About all that was asked, not only there", "涵盖所有提问，不限于该频道"),
    "schedule_digest_unanswered": ("List what could not be answered", "列出未能回答的问题"),
    "schedule_digest_down": ("List what was rated 👎", "列出收到 👎 的问题"),
    "job_about_digest": ("A summary of questions", "提问摘要"),
    "connection_off": ("off", "已停用"),
    "connection_unset": ("not connected", "未连接"),
    "connection_waiting": ("waits for «kvasir up»", "等待 “kvasir up” 接管"),
    "connection_connecting": ("connecting", "连接中"),
    "connection_connected": ("connected", "已连接"),
    "connection_standby": ("stands by while another process is connected", "待命（由其他进程连接）"),
    "connection_refused": ("refused", "被拒绝"),
    "connection_silent": ("its process is not heard", "进程无响应"),
    "connection_is": ("{platform}: {state}.", "{platform}：{state}。"),
    "connection_remove": (
        "Forget the tokens and options of {platform}? It is left at once where the settings say nothing of it.",
        "确定清除 {platform} 的令牌和选项吗？若设置中没有配置该平台，将立即断开。",
    ),
    "connection_removed": ("What was kept for {platform} is forgotten.", "已清除 {platform} 的连接信息。"),
    "connection_nothing_kept": ("Nothing is kept for {platform}.", "没有为 {platform} 保存任何内容。"),
    "connection_no_secret_here": (
        "A command line can be read by others; write «{name}=-» and give it when asked.",
        "命令行内容可能被他人看到；请写 “{name}=-”，再按提示输入。",
    ),
    "outbox_sent": ("The message stands there.", "消息已发出。"),
    "outbox_still_waiting": (
        "The message waits for a process that runs {platform}: is it connected, and does «kvasir up» run?",
        "消息正等待运行 {platform} 的进程：请确认已连接，并且 “kvasir up” 正在运行。",
    ),
    "connection_no_field": ("There is no option «{name}».", "没有选项“{name}”。"),
    "no_such_field": ("There is no such option.", "没有这个选项。"),
    "connection_by_settings": (
        "This is set by the settings ({variable}), which go first; change it there.",
        "此项由设置（{variable}）指定，优先于控制台；请在设置中更改。",
    ),
    "connection_secrets_again": (
        "Tokens would go to another address now, so give them again: {fields}.",
        "令牌将发往另一个地址，因此请重新填写：{fields}。",
    ),
    "connection_too_long": ("That is too long: at most {most}.", "内容过长，上限为 {most}。"),
    "connection_bad_value": ("This value cannot be used.", "该值无法使用。"),
    "outbox_no_channel": ("Say in which channel to post.", "请指定要发布到的频道。"),
    "outbox_no_text": ("There is nothing to post.", "没有可发布的内容。"),
    "no_such_posting": ("There is no such message.", "没有这条消息。"),
    "outbox_unknown": (
        "Its sender ended before it heard whether the message was posted; look in the channel.",
        "发送进程在得知结果之前已结束，不确定消息是否已发出；请到频道中查看。",
    ),
    "outbox_unheard": (
        "{platform} did not say whether the message was posted ({reason}); look in the channel.",
        "{platform} 未确认消息是否已发出（{reason}）；请到频道中查看。",
    ),
    "outbox_nobody": (
        "No process runs {platform}: is it connected, and does «kvasir up» run?",
        "没有进程在运行 {platform}：请确认已连接，并且 “kvasir up” 正在运行。",
    ),
    "outbox_refused": ("{platform} did not take the message: {reason}", "{platform} 未接受该消息：{reason}"),
    "outbox_test": (
        "A test message from Kvasir: this channel is connected. Mention me here to ask a question.",
        "这是 Kvasir 的测试消息：此频道已连接。在这里提及我即可提问。",
    ),
    "digest_unanswered": (
        "I found nothing about these; documents on them would help:",
        "以下问题没有找到资料，补充相关文档会有帮助：",
    ),
    "chat_status_waiting": ("Questions that wait: {count}", "等待中的问题：{count}"),
    "control_stop": ("Stop", "停止"),
    "control_again": ("Answer again", "重新回答"),
    "control_human": ("Ask a human", "找人帮忙"),
    "control_resolved": ("Solved", "已解决"),
    "control_share": ("Share to channel", "分享到频道"),
    "control_up": ("Helpful", "有帮助"),
    "control_down": ("Not helpful", "没有帮助"),
    "ask_reason_title": ("What was wrong?", "哪里不好？"),
    "ask_reason_hint": ("It helps to make answers better (optional).", "有助于改进回答（可不填）。"),
    "terminal_stopped": ("Stopped.", "已停止。"),
    "terminal_help": (
        "/up · /down [why] rate the last answer · /kb NAME chooses a knowledge base · /new begins anew · /quit ends",
        "/up · /down [理由] 评价上一个回答 · /kb 名称 选择知识库 · /new 开始新对话 · /quit 退出",
    ),
    "terminal_thanks": ("Thank you.", "谢谢。"),
    "terminal_nothing_to_rate": ("There is no answer to rate yet.", "还没有可评价的回答。"),
    "terminal_new": ("A new conversation begins.", "新的对话开始了。"),
    "terminal_kb": ("Answers come from «{name}» now.", "现在从“{name}”中回答。"),
    "terminal_kb_missing": ("Say which: /kb NAME. There are: {there}.", "请指明：/kb 名称。现有：{there}。"),
    "terminal_unknown": (
        "There is no command {command}; /help shows those there are.",
        "没有命令 {command}；用 /help 查看。",
    ),
    "document_empty": ("The file is empty.", "文件是空的。"),
    "document_no_text": ("No text was found in the file.", "文件中没有文字。"),
    "document_scan": (
        "The file holds only pictures; to have their text read, run: pip install 'kvasir[{extra}]'",
        "文件中只有图片；要识别其中的文字，请运行：pip install 'kvasir[{extra}]'",
    ),
    "document_scan_off": (
        "The file holds only pictures, and reading these is switched off; set KVASIR_INGEST__OCR=auto.",
        "文件中只有图片，而图片识别已关闭；请设置 KVASIR_INGEST__OCR=auto。",
    ),
    "document_encrypted": (
        "The file is encrypted; remove its password and upload it again.",
        "文件已加密；请去掉密码后重新上传。",
    ),
    "document_damaged": (
        "The file is damaged or not really {kind}; open it in its own program, save it again and upload that.",
        "文件已损坏，或者并不是 {kind} 文件；请用相应的程序打开、重新保存后再上传。",
    ),
    "document_mismatch": (
        "The file is named {suffix} but holds {found}; give it its right name and upload it again.",
        "文件名后缀是 {suffix}，内容却是 {found}；请改成正确的名字后重新上传。",
    ),
    "document_mismatch_binary": (
        "The file is named {suffix} but does not hold text; upload the right file.",
        "文件名后缀是 {suffix}，内容却不是文本；请上传正确的文件。",
    ),
    "document_unsupported": (
        "Files of this kind ({found}) are not read; save it as PDF, DOCX, Markdown or plain text.",
        "不支持这类文件（{found}）；请另存为 PDF、DOCX、Markdown 或纯文本。",
    ),
    "document_archive": (
        "Archives ({found}) are not unpacked; unpack it and upload the files in it.",
        "不会解开压缩包（{found}）；请解压后上传其中的文件。",
    ),
    "document_pickle": (
        "Pickled objects and model files are never opened; upload documents only.",
        "不会打开 pickle 对象和模型文件；请只上传文档。",
    ),
    "document_bomb": (
        "The file unpacks to far more than it should, so it was not opened; save it again in its own program.",
        "文件解开后远大于应有的大小，因此没有打开；请用相应的程序重新保存。",
    ),
    "document_entities": (
        "The file declares XML entities, which are not read; remove its DOCTYPE and upload it again.",
        "文件声明了 XML 实体，出于安全不予读取；请去掉 DOCTYPE 后重新上传。",
    ),
    "document_nested": (
        "The file is nested too deeply to be read; make it flatter and upload it again.",
        "文件嵌套过深，无法读取；请简化结构后重新上传。",
    ),
    "document_pixels": (
        "The picture has more than {count} megapixels; make it smaller and upload it again.",
        "图片超过 {count} 百万像素；请缩小后重新上传。",
    ),
    "document_cells": (
        "Sheet «{name}» spans too many cells; delete stray cells far from its table and upload it again.",
        "工作表“{name}”跨越的单元格过多；请删除远离表格的零散单元格后重新上传。",
    ),
    "document_too_large": (
        "The file is larger than {megabytes} MB; split it, or raise KVASIR_INGEST__MAX_FILE_MB.",
        "文件超过 {megabytes} MB；请拆分文件，或调大 KVASIR_INGEST__MAX_FILE_MB。",
    ),
    "document_gone": (
        "The stored file could not be opened; upload it again.",
        "无法打开已保存的文件；请重新上传。",
    ),
    "document_slow": (
        "Reading the file took longer than {seconds} seconds; split it, or raise {setting}.",
        "读取文件超过 {seconds} 秒；请拆分文件，或调大 {setting}。",
    ),
    "document_memory": (
        "Reading the file needs more than {megabytes} MB of memory; split it, or raise KVASIR_INGEST__MEMORY_MB.",
        "读取文件所需内存超过 {megabytes} MB；请拆分文件，或调大 KVASIR_INGEST__MEMORY_MB。",
    ),
    "document_crashed": (
        "The file made its reader fail, so it is probably damaged; save it again in its own program and upload that.",
        "读取文件时程序出错，文件可能已损坏；请用相应的程序重新保存后再上传。",
    ),
    "note_limit": ("Only the first {count} characters were read.", "只读取了前 {count} 个字符。"),
    "note_pages": ("Only the first {count} pages were read.", "只读取了前 {count} 页。"),
    "note_scans": (
        "{count} pages hold only pictures; to have these read, run: pip install 'kvasir[ocr]'",
        "有 {count} 页只有图片；要识别其中的文字，请运行：pip install 'kvasir[ocr]'",
    ),
    "note_scans_off": (
        "{count} pages hold only pictures, and reading these is switched off; set KVASIR_INGEST__OCR=auto.",
        "有 {count} 页只有图片，而图片识别已关闭；请设置 KVASIR_INGEST__OCR=auto。",
    ),
    "note_scan_pages": ("Only the first {count} scanned pages were read.", "只识别了前 {count} 页扫描件。"),
    "note_columns": ("Only the first {count} columns were read.", "只读取了前 {count} 列。"),
    "note_cells": (
        "Fields of more than {count} characters were cut.",
        "超过 {count} 个字符的字段已被截断。",
    ),
    "note_lines": (
        "Lines of more than {count} characters were cut.",
        "超过 {count} 个字符的行已被截断。",
    ),
    "note_quotes": (
        "A quotation mark is never closed, so quotation marks were taken as text.",
        "有引号没有闭合，因此引号按普通文字处理。",
    ),
    "note_hidden": ("Hidden sheets were left out: {names}.", "隐藏的工作表未读取：{names}。"),
    "note_encoding": (
        "Some characters could not be read, because the file mixes encodings.",
        "文件混用了多种编码，有些字符无法识别。",
    ),
    "note_attachments": ("Attachments were not read: {names}.", "附件未读取：{names}。"),
    # models as data
    "no_such_engine": (
        "There is no engine named «{name}»; there are: {names}.",
        "没有名为“{name}”的引擎；现有：{names}。",
    ),
    "no_such_embedder": (
        "There is no embedder named «{name}»; there are: {names}.",
        "没有名为“{name}”的嵌入模型；现有：{names}。",
    ),
    "no_such_reranker": (
        "There is no reranker named «{name}»; there are: {names}.",
        "没有名为“{name}”的重排模型；现有：{names}。",
    ),
    "no_such_adapter": ("There is no kind of model «{name}»; there are: {names}.", "没有“{name}”类型；现有：{names}。"),
    "model_not_added": (
        "«{name}» was not added here: what the settings file sets is changed there.",
        "“{name}”不是在此处添加的；设置文件中的模型请在设置文件里修改。",
    ),
    "model_exists": ("There is already a model named «{name}».", "已有名为“{name}”的模型。"),
    "bad_model_name": (
        "A model's name has at most 64 letters, digits, spaces and . + - _, and begins with a letter or digit.",
        "模型名称最多 64 个字符，可用字母、数字、空格和 . + - _，并以字母或数字开头。",
    ),
    "model_is_off": (
        "The model «{name}» is switched off; load it on the console's page «Models», or choose another.",
        "模型“{name}”已停用；请在控制台“模型”页加载它，或改用其他模型。",
    ),
    "model_changed": (
        "The model «{name}» has just been changed; try again.",
        "模型“{name}”刚刚更改过；请重试。",
    ),
    "model_is_default": (
        "«{name}» is the default; make another one that first.",
        "“{name}”是当前的默认模型；请先把默认换成另一个。",
    ),
    "model_is_used": (
        "«{name}» is used by: {users}. Choose another model there first.",
        "以下位置正在使用“{name}”：{users}。请先在那里改用其他模型。",
    ),
    "model_made_indexes": (
        "«{name}» has made the index of: {kbs}. Re-index them with another embedder first.",
        "“{name}”建立了以下知识库的索引：{kbs}。请先用其他嵌入模型重新索引。",
    ),
    "model_not_set_up": (
        "«{name}» lacks something that it needs; add it as a model of its own, with its settings.",
        "“{name}”缺少必要的设置；请作为新模型添加，并填写设置。",
    ),
    "model_no_settings": ("«{adapter}» has nothing to set.", "“{adapter}”没有可设置的内容。"),
    "model_no_field": ("«{adapter}» has no setting «{field}».", "“{adapter}”没有“{field}”这项设置。"),
    "model_bad_field": ("«{field}» cannot be so: {reason}.", "“{field}”的值无效：{reason}。"),
    "model_field_needed": ("«{field}» is needed.", "必须填写“{field}”。"),
    "model_field_secret": ("«{field}» is a secret, and is to be given as one.", "“{field}”属于机密，请作为机密提交。"),
    "model_bad_secret": (
        "«{field}» holds characters that no key or header has; copy it once more.",
        "“{field}”含有密钥或请求头中不会出现的字符；请重新复制。",
    ),
    "model_field_long": ("«{field}» is too long; {most} characters at most.", "“{field}”过长，最多 {most} 个字符。"),
    "model_field_controls": ("«{field}» holds characters that cannot be seen.", "“{field}”含有不可见字符。"),
    "model_bad_address": (
        "«{field}» must be an address that begins with http:// or https://, without a user name in it.",
        "“{field}”必须是以 http:// 或 https:// 开头的地址，且不含用户名。",
    ),
    "model_key_again": (
        "The address leads to another server now: type the key again, so that it is not sent where it does not belong.",
        "地址已指向另一台服务器：请重新输入密钥，以免密钥被发送到不该去的地方。",
    ),
    "model_empty_test": ("The model answered, but with nothing.", "模型有响应，但内容为空。"),
    "model_slow_test": ("Nothing came within {seconds} seconds.", "{seconds} 秒内没有任何响应。"),
    "model_test_question": (
        "What was Kvasir known for? Answer in one sentence.",
        "Kvasir 以什么闻名？请用一句话回答。",
    ),
    "model_test_passage": (
        "Kvasir was the wisest being of the old Norse stories. Nobody could ask him what he could not answer.",
        "Kvasir 是北欧神话中最有智慧的人。没有人能提出他答不上来的问题。",
    ),
    "model_default_mark": ("default", "默认"),
    "model_off_mark": ("off", "已停用"),
    "model_was_added": (
        "«{name}» is there; «kvasir model test» tries it.",
        "已添加“{name}”；可用 “kvasir model test” 测试。",
    ),
    "model_was_changed": ("«{name}» was changed.", "已修改“{name}”。"),
    "model_was_loaded": (
        "«{name}» is switched on; a running Kvasir loads it within a few seconds.",
        "已启用“{name}”；运行中的 Kvasir 会在几秒内加载它。",
    ),
    "model_was_unloaded": (
        "«{name}» is switched off; a running Kvasir closes it when its last answer has ended.",
        "已停用“{name}”；运行中的 Kvasir 会在最后一个回答结束后关闭它。",
    ),
    "model_is_used_now": ("«{name}» is used where no other is named.", "未指定其他模型时将使用“{name}”。"),
    "model_read": ("Reading the model's folder", "正在读取模型文件夹"),
    "model_compile": ("Compiling for this machine's cards, once", "正在为本机显卡编译（仅一次）"),
    "model_compile_wait": ("Waiting for another process that compiles", "等待另一个进程完成编译"),
    "model_weights": ("Loading the model's weights", "正在加载模型权重"),
    "model_draft": ("Loading the model that guesses ahead", "正在加载草稿模型"),
    "model_rehearse": ("Trying the longest prompt", "正在试运行最长的提示词"),
    "model_start": ("Starting", "正在启动"),
    "model_built": ("The extension of {kind} is in {folder}.", "{kind} 的扩展已编译到 {folder}。"),
    "model_build_died": ("The compiler's process ended with status {status}.", "编译进程以状态 {status} 结束。"),
    "model_took": ("It took {seconds} s.", "用时 {seconds} 秒。"),
    "model_vector_test": (
        "Vectors of {dimension} numbers; a text that fits the question: {near}, one that does not: {far}.",
        "向量 {dimension} 维；与问题相关的文本：{near}，无关的文本：{far}。",
    ),
    "model_remove_question": ("Forget the model «{name}» with its key?", "删除模型“{name}”及其密钥？"),
    "model_was_removed": ("«{name}» was removed.", "已删除“{name}”。"),
    "model_say_set": ("Say --set as FIELD=VALUE.", "请按 --set 字段=值 的形式填写。"),
    "no_such_preset": ("There is no preset «{name}»; there are: {names}.", "没有预设“{name}”；现有：{names}。"),
    # `kvasir model convert`
    "convert_no_model": (
        "{folder} is no model folder: it has no config.json. Name the folder with a model as it was published.",
        "{folder} 不是模型文件夹：其中没有 config.json。请指定原样下载的模型文件夹。",
    ),
    "convert_bad_config": ("{file} cannot be read: {reason}", "无法读取 {file}：{reason}"),
    "convert_no_weights": ("{folder} has no .safetensors files.", "{folder} 中没有 .safetensors 文件。"),
    "convert_pickle": (
        "{folder} has its weights in a form that can run code (.bin, .pt). Take a version with .safetensors files.",
        "{folder} 中的权重只有可能执行代码的格式（.bin、.pt）。请使用带 .safetensors 文件的版本。",
    ),
    "convert_code": (
        "{folder} needs code of its own (auto_map in config.json), which Kvasir never runs.",
        "{folder} 需要运行模型自带的代码（config.json 中的 auto_map），Kvasir 不会运行。",
    ),
    "convert_quantized": (
        "{folder} is quantized already ({method}); take the unquantized model, or one with AWQ.",
        "{folder} 已经量化过（{method}）；请使用未量化的模型，或 AWQ 量化的模型。",
    ),
    "convert_target_there": (
        "{folder} exists and is not empty; name another folder.",
        "{folder} 已存在且不为空，请指定其他文件夹。",
    ),
    "convert_disk": (
        "{folder} lacks room: {needed} GB are needed, {free} GB are free.",
        "{folder} 空间不足：需要 {needed} GB，可用 {free} GB。",
    ),
    "convert_no_python": ("{python} cannot be started: {reason}", "无法启动 {python}：{reason}"),
    "convert_missing": (
        "Converting needs {packages}, once: {command}. Or name a Python that has them with --python.",
        "转换需要一次性安装 {packages}：{command}。也可以用 --python 指定已安装这些包的 Python。",
    ),
    "convert_missing_there": ("{python} lacks {packages}.", "{python} 缺少 {packages}。"),
    "convert_killed": (
        "The conversion was ended by the system (signal {signal}), most likely for want of memory: {needed} GB.",
        "转换被系统终止（信号 {signal}），多半是内存不足：约需 {needed} GB。",
    ),
    "convert_differs": (
        "The converted model does not think as the published one (correlation {alike}, not .95); it was not kept.",
        "转换后的模型与原模型的输出不一致（相关系数 {alike}，应不低于 .95），未保留任何文件。",
    ),
    "convert_failed": ("The model could not be converted: {reason}", "模型转换失败：{reason}"),
    "convert_stage_import": ("starting", "启动"),
    "convert_stage_read": ("reading weights", "读取权重"),
    "convert_stage_quantize": ("computing", "计算"),
    "convert_stage_write": ("writing", "写入"),
    "convert_stage_try": ("trying", "试运行"),
    "convert_done": (
        "{folder} is ready: {size} GB, {quantization}, correlation with the published model {alike}. To use it:",
        "{folder} 已就绪：{size} GB，{quantization}，与原模型输出的相关系数 {alike}。使用方法：",
    ),
    "convert_cuda": ("It runs on CUDA cards only.", "只能在 CUDA 显卡上运行。"),
    "log_opening": ("opening", "正在打开"),
    "log_open": ("open", "已就绪"),
    "log_answer": ("answered in {seconds} s, {pieces} pieces", "回答完成，用时 {seconds} 秒，共 {pieces} 段"),
    # the embedder `openai`
    "rerank_closed": (
        "The reranking model was closed meanwhile; ask again.",
        "重排模型刚刚已关闭；请重试。",
    ),
    "rerank_no_folder": (
        "Set KVASIR_RERANKER__MODEL_DIR to the folder with the reranking model.",
        "请设置 KVASIR_RERANKER__MODEL_DIR，填写重排模型所在的文件夹。",
    ),
    "rerank_no_head": (
        "The model in {folder} is no cross-encoder: it embeds texts. Choose one with a classification head.",
        "{folder} 中的模型不是交叉编码器，而是嵌入模型；请选择带分类头的模型。",
    ),
    "rerank_not_running": (
        "The reranking model in {folder} does not run here ({kind}); get the model's files once more.",
        "{folder} 中的重排模型无法运行（{kind}）；请重新获取模型文件。",
    ),
    "rerank_not_set": (
        "Set KVASIR_RERANKER__BASE_URL and KVASIR_RERANKER__MODEL to the address and the model of your server.",
        "请设置 KVASIR_RERANKER__BASE_URL 和 KVASIR_RERANKER__MODEL，填写服务器地址和模型名称。",
    ),
    "rerank_no_connection": (
        "The reranking server {host} cannot be reached; check its address, and that it runs.",
        "无法连接重排服务器 {host}；请检查地址以及服务是否在运行。",
    ),
    "rerank_key": (
        "The reranking server {host} refuses the key; check it.",
        "重排服务器 {host} 拒绝了密钥；请检查密钥。",
    ),
    "rerank_failed": (
        "The reranking server {host} failed (status {status}): {said}",
        "重排服务器 {host} 出错（状态 {status}）：{said}",
    ),
    "rerank_slow": (
        "The reranking server {host} did not answer within {seconds} seconds.",
        "重排服务器 {host} 在 {seconds} 秒内没有响应。",
    ),
    "rerank_garbage": (
        "The reranking server {host} sent no score for every passage; check its address, and the dialect it speaks.",
        "重排服务器 {host} 没有为每个段落返回分数；请检查地址以及接口方言。",
    ),
    "embed_not_set": (
        "Set KVASIR_EMBEDDER__BASE_URL and KVASIR_EMBEDDER__MODEL to the address and the model of your server.",
        "请设置 KVASIR_EMBEDDER__BASE_URL 和 KVASIR_EMBEDDER__MODEL，填写服务器地址和模型名称。",
    ),
    "embed_no_connection": (
        "The embedding server {host} cannot be reached; check its address, and that it runs.",
        "无法连接嵌入服务器 {host}；请检查地址以及服务是否在运行。",
    ),
    "embed_key": (
        "The embedding server {host} refuses the key; check it.",
        "嵌入服务器 {host} 拒绝了密钥；请检查密钥。",
    ),
    "embed_no_model": (
        "The embedding server {host} knows no model «{model}», or no embeddings at this address.",
        "嵌入服务器 {host} 没有模型“{model}”，或此地址不提供嵌入。",
    ),
    "embed_busy": (
        "The embedding server {host} is busy, or its quota is used up: {said}",
        "嵌入服务器 {host} 繁忙或额度已用完：{said}",
    ),
    "embed_failed": (
        "The embedding server {host} failed (status {status}): {said}",
        "嵌入服务器 {host} 出错（状态 {status}）：{said}",
    ),
    "embed_slow": (
        "The embedding server {host} did not answer within {seconds} seconds.",
        "嵌入服务器 {host} 在 {seconds} 秒内没有响应。",
    ),
    "embed_garbage": (
        "The embedding server {host} sent something that is no list of embeddings; check that its address ends in /v1.",
        "嵌入服务器 {host} 返回的不是嵌入向量列表；请检查地址是否以 /v1 结尾。",
    ),
    "embed_moved": (
        "The embedding server {host} sends to {target}; give that address.",
        "嵌入服务器 {host} 重定向到 {target}；请填写该地址。",
    ),
    "embed_dimension": (
        "The embedding server {host} gives vectors of {found} numbers where {wanted} are wanted.",
        "嵌入服务器 {host} 返回 {found} 维向量，而需要的是 {wanted} 维。",
    ),
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
    return say(key, spoken(), **values)


def spoken() -> Language:
    """The language being spoken; outside `speaking`, English."""
    return _spoken.get("en")


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
    if text.isascii():
        return "en"
    letters = [char for char in text if char.isalpha()]
    han = sum("\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf" for char in letters)
    return "zh" if letters and han * 5 >= len(letters) else "en"


def place_of(locator: Locator, headings: Sequence[str], language: Language) -> str:
    """Where in its document a passage stands, e.g. «page 3, Leave › Sick days»; empty where nothing is known."""
    place = "" if locator.kind == "part" and locator.label in headings else _place(locator, language)
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
    if not kind or first is None or (kind == "part" and named):
        return named
    last = locator.last if locator.last is not None else first
    key = f"place_{numbered}" if last == first else f"place_{numbered}s"
    numbers = say(key, language, first=first, last=last)
    return " ".join(part for part in (named, numbers) if part)
