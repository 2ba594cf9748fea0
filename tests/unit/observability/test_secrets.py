"""Values given as secrets are taken out of whatever quotes them; how many are remembered is bounded."""

from __future__ import annotations

from cloudless.agent.reports import ReportBook
from cloudless.core.model import TaskObserved, TaskState
from cloudless.observability import secrets
from cloudless.observability.secrets import KEPT_MAX, clean, keep_secret, keep_secrets_of, without_kept

DIGEST = "sha256:" + "0a1b2c3d" * 8


def test_a_failure_that_quotes_a_secret_is_reported_without_it() -> None:
    keep_secrets_of({"DB_PASSWORD": "hunter2!", "MODE": "fast-lane"})
    book = ReportBook()
    for said in (f"no image {DIGEST} for hunter2!", "the fast-lane is closed"):
        book.put(TaskObserved(task_id=said, node_id="n1", sequence=1, state=TaskState.FAILED, message=said))
    assert [report.message for report in book.pending()] == [
        f"no image {DIGEST} for [redacted]",
        "the fast-lane is closed",
    ]


def test_logs_are_cleaned_of_what_looks_like_a_secret_too() -> None:
    assert without_kept("token=abcdefgh") == "token=abcdefgh"
    assert clean("token=abcdefgh") == "token=[redacted]"


def test_short_values_are_words_like_any_other() -> None:
    keep_secret("on", "5432", "")
    assert clean("on port 5432") == "on port 5432"


def test_the_oldest_secrets_are_forgotten_first() -> None:
    keep_secret("the-first", *(f"secret-{n}" for n in range(KEPT_MAX)))
    assert len(secrets._kept) == KEPT_MAX
    assert without_kept("the-first") == "the-first"
    assert without_kept(f"secret-{KEPT_MAX - 1}") == "[redacted]"
