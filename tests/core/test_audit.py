"""Changes are written down without the secrets in them."""

from __future__ import annotations

import pytest

from core.db.session import Database
from core.identity.audit import MASK, Audit, masked
from core.types import Person, Role

pytestmark = pytest.mark.anyio

ANN = Person("user:1", "ann", Role.ADMIN)


@pytest.mark.parametrize(
    "key", ["api_key", "apikey", "password", "bot_token", "secret", "client_secret", "key", "credentials", "API_KEY"]
)
def test_what_is_called_like_a_secret_is_masked_at_any_depth(key: str) -> None:
    assert masked({key: "xoxb-1"}) == {key: MASK}
    assert masked({"settings": {"of": [{key: "xoxb-1"}]}}) == {"settings": {"of": [{key: MASK}]}}
    assert masked({key: ""}) == {key: ""}, "an empty one says that it was taken away"


def test_what_is_no_secret_stays() -> None:
    values = {"max_tokens": 200, "prompt_tokens": 3, "name": "hr", "private": True, "keyword": "x", "none": None}
    assert masked(values) == values


def test_a_login_within_an_address_is_masked_and_long_texts_are_cut() -> None:
    found = masked({"url": "https://ann:pw@git.example.org/x.git", "text": "x" * 2000})
    assert found["url"] == f"https://{MASK}@git.example.org/x.git"
    assert len(found["text"]) == 501


async def test_the_log_is_read_a_page_at_a_time_the_newest_first(db: Database) -> None:
    audit = Audit(db)
    for number in range(5):
        await audit.note(ANN, "kb.create", kind="kb", object=f"kb{number}", changes={"password": "x"}, address="::1")
    await audit.note(Person("user:2", "bob"), "user.disable", kind="user", object="eve")
    items, total = await audit.list(limit=2)
    assert total == 6
    assert [item.object for item in items] == ["eve", "kb4"]
    assert items[1].changes == {"password": MASK}
    assert items[1].address == "::1"
    assert [item.object for item in (await audit.list(text="bob"))[0]] == ["eve"]
    assert (await audit.list(kind="kb"))[1] == 5
    assert (await audit.list(kind="kb", object="kb3"))[1] == 1
    assert (await audit.list(text="%"))[1] == 0, "a pattern's signs are signs like others"
