"""What is kept, to look through, search, filter and export: read-only lists of SQLAdmin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from sqladmin import ModelView
from sqladmin.i18n import gettext
from sqlalchemy import Select, Subquery, func, select
from sqlalchemy.orm import InstrumentedAttribute, load_only
from starlette.requests import Request
from typing_extensions import override

from core.db.tables import (
    AnswerRow,
    ApiKeyRow,
    AuditRow,
    CuratedRow,
    DocumentRow,
    EscalationRow,
    InboxRow,
    JobRow,
    OutboxRow,
    RatingRow,
    ScheduleRunRow,
    SessionRow,
    UserRow,
)
from core.quality.feedback import cell

_LONGEST: Final = 160
"""Characters of a value in a list."""

Column = InstrumentedAttribute[Any]


class Choice:
    """Keeps the rows whose column has one of some known values."""

    has_operator = False
    template = "console/filter.html"
    default_value: Any
    """Not set: SQLAdmin takes its absence for «all»."""

    def __init__(self, column: Column, values: Sequence[str]) -> None:
        self.column = column
        self.title = self.parameter_name = column.key
        self._values = values

    async def lookups(self, request: Request, model: Any, run_query: Any) -> list[tuple[str, str]]:  # noqa: ARG002  the protocol's
        return [(value, value) for value in self._values]

    async def get_filtered_query(self, query: Select[Any], value: Any, model: Any) -> Select[Any]:  # noqa: ARG002  the same
        if self.column.type.python_type is bool:
            return query.where(self.column.is_(value == "yes"))
        kind = self.column.type.python_type
        return query.where(self.column == kind(value)) if value in self._values else query


class RecordView(ModelView):
    """A read-only list. Labels and values of choices are English and go through `gettext`, as SQLAdmin's words do."""

    can_create = can_edit = can_delete = can_import = False
    page_size = 50
    page_size_options: ClassVar[list[int]] = [25, 50, 100]
    list_template = "console/records.html"
    details_template = "console/record.html"
    export_types: ClassVar[list[str]] = ["csv", "json"]
    export_max_rows = 10_000
    use_pretty_export = True
    icon = "document"

    def word(self, name: str, value: Any, text: str) -> str:
        """A value in a list: `gettext`'s where it is one of a few that we made up ourselves."""
        known = isinstance(value, bool) or any(name == one.parameter_name for one in self.column_filters)
        return gettext(text) if known else text

    @override
    def list_query(self, request: Request) -> Select[Any]:
        """Only what the list shows is read."""
        columns = dict.fromkeys([*self._list_prop_names, *(key.name for key in self.pk_columns)])
        return select(self.model).options(load_only(*(getattr(self.model, name) for name in columns)))

    @override
    async def count(self, request: Request, stmt: Select[Any] | None = None) -> int:
        """Of the ids alone; SQLAdmin itself counts whole rows, in their order, which takes long where they are wide."""
        if stmt is not None:
            (rows,) = stmt.get_final_froms()
            assert isinstance(rows, Subquery)  # noqa: S101 - what SQLAdmin counts in
            assert isinstance(rows.element, Select)  # noqa: S101 - as above
            ids = rows.element.with_only_columns(*self.pk_columns).order_by(None)
            stmt = select(func.count()).select_from(ids.subquery())
        return await super().count(request, stmt)

    @override
    def search_placeholder(self) -> str:
        return ", ".join(gettext(label_of(name)) for name in self._search_fields)

    @override
    async def get_list_value(self, obj: Any, prop: str, request: Request | None = None) -> tuple[Any, Any]:
        value = getattr(obj, prop)
        return value, _shortened(shown(value))

    @override
    async def get_detail_value(self, obj: Any, prop: str, request: Request | None = None) -> tuple[Any, Any]:
        value = getattr(obj, prop)
        return value, shown(value, whole=True)

    @override
    async def custom_export_cell(self, row: Any, name: str, value: Any) -> str | None:
        """Nothing that a spreadsheet would run."""
        return cell(shown(value, whole=True))


def label_of(name: str) -> str:
    """A column's name as people read it, in English."""
    return name.replace("_", " ").capitalize()


def shown(value: Any, *, whole: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, indent=1 if whole else None)
    return str(value)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_YES_NO: Final = ("yes", "no")


class Answers(RecordView, model=AnswerRow):
    name, name_plural = "Answer", "Answers"
    column_list = ("created_at", "platform", "question", "text", "answered", "state", "engine", "person")
    column_details_exclude_list = ("prompt",)
    column_searchable_list = ("question", "person")
    column_sortable_list = ("created_at",)
    column_default_sort = ("created_at", True)
    column_filters = (
        Choice(AnswerRow.answered, _YES_NO),
        Choice(AnswerRow.state, ("complete", "stopped", "failed", "replaced")),
        Choice(AnswerRow.platform, ("web", "slack", "discord", "telegram", "terminal")),
    )


class Ratings(RecordView, model=RatingRow):
    name, name_plural = "Rating", "Ratings"
    column_list = ("updated_at", "value", "reason", "person", "answer_id")
    column_searchable_list = ("reason", "person")
    column_sortable_list = ("updated_at",)
    column_default_sort = ("updated_at", True)
    column_filters = (Choice(RatingRow.value, ("1", "-1", "0")),)


class Escalations(RecordView, model=EscalationRow):
    name, name_plural = "Call for a human", "Calls for a human"
    column_list = ("created_at", "person", "answer_id", "resolved_by", "resolved_at")
    column_searchable_list = ("person", "resolved_by")
    column_default_sort = ("created_at", True)


class CuratedAnswers(RecordView, model=CuratedRow):
    name, name_plural = "Curated answer", "Curated answers"
    column_list = ("updated_at", "question", "text", "state", "used", "created_by")
    column_searchable_list = ("question", "text")
    column_default_sort = ("updated_at", True)
    column_filters = (Choice(CuratedRow.state, ("active", "review", "expired", "off")),)


class Documents(RecordView, model=DocumentRow):
    name, name_plural = "Document", "Documents"
    column_list = ("updated_at", "name", "title", "media_type", "size", "status", "chunks", "reason")
    column_searchable_list = ("name", "title")
    column_sortable_list = ("updated_at", "name", "size", "chunks")
    column_default_sort = ("updated_at", True)
    column_filters = (Choice(DocumentRow.status, ("queued", "working", "indexed", "failed", "deleting")),)


class Jobs(RecordView, model=JobRow):
    name, name_plural = "Job", "Jobs"
    column_list = ("created_at", "kind", "state", "attempts", "error", "started_at", "finished_at")
    column_searchable_list = ("kind", "error")
    column_default_sort = ("created_at", True)
    column_filters = (Choice(JobRow.state, ("queued", "running", "done", "failed", "cancelled")),)


class ScheduleRuns(RecordView, model=ScheduleRunRow):
    name, name_plural = "Run of a schedule", "Runs of schedules"
    column_list = ("created_at", "schedule_id", "slot", "job_id", "result")
    column_searchable_list = ("result",)
    column_default_sort = ("created_at", True)


class Inbox(RecordView, model=InboxRow):
    name, name_plural = "Question from a platform", "Questions from platforms"
    column_list = ("created_at", "platform", "workspace", "channel", "state", "attempts", "said_at", "finished_at")
    column_searchable_list = ("workspace", "channel")
    column_default_sort = ("created_at", True)
    column_filters = (
        Choice(InboxRow.state, ("waiting", "working", "done", "failed", "late", "withdrawn")),
        Choice(InboxRow.platform, ("slack", "discord", "telegram")),
    )


class Outbox(RecordView, model=OutboxRow):
    name, name_plural = "Message to a platform", "Messages to platforms"
    column_list = ("created_at", "platform", "channel", "purpose", "text", "state", "error", "sent_at")
    column_searchable_list = ("channel", "text")
    column_default_sort = ("created_at", True)
    column_filters = (Choice(OutboxRow.state, ("waiting", "sending", "sent", "failed")),)


class Users(RecordView, model=UserRow):
    name, name_plural = "User", "Users"
    column_list = ("name", "role", "everywhere", "disabled", "subject", "created_at")
    column_details_exclude_list = ("password_hash",)
    column_searchable_list = ("name",)
    column_default_sort = "name"
    column_filters = (
        Choice(UserRow.role, ("owner", "admin", "editor", "reviewer", "viewer")),
        Choice(UserRow.disabled, _YES_NO),
    )


class Sessions(RecordView, model=SessionRow):
    name, name_plural = "Login", "Logins"
    can_view_details = False
    column_list = ("seen_at", "user_id", "address", "user_agent", "created_at", "expires_at")
    column_searchable_list = ("address", "user_agent")
    column_default_sort = ("seen_at", True)


class ApiKeys(RecordView, model=ApiKeyRow):
    name, name_plural = "API key", "API keys"
    column_list = ("created_at", "name", "prefix", "user_id", "scopes", "expires_at", "revoked_at", "used_at")
    column_details_exclude_list = ("token_hash",)
    column_searchable_list = ("name", "prefix")
    column_default_sort = ("created_at", True)


class Audit(RecordView, model=AuditRow):
    name, name_plural = "Change", "Audit log"
    column_list = ("created_at", "name", "action", "kind", "object", "changes", "address")
    column_searchable_list = ("name", "action", "object", "person")
    column_default_sort = ("created_at", True)


RECORDS: Final[Sequence[type[RecordView]]] = (
    Answers,
    Ratings,
    Escalations,
    CuratedAnswers,
    Documents,
    Jobs,
    ScheduleRuns,
    Inbox,
    Outbox,
    Users,
    Sessions,
    ApiKeys,
    Audit,
)
"""In the order of the menu."""
