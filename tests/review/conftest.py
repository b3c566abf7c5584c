"""Reviews of tests have tokens that are drawn anew in each test, and the same in each run of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True, scope="session")
def _same_tokens():
    # Who sees what on which side hangs on a secret: what is measured over planted people would differ from run to run.
    drawn = Counter()

    def token(num_bytes: int) -> str:
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        drawn[test] += 1
        return hashlib.sha256(f"{test} {drawn[test]}".encode()).hexdigest()[: 2 * num_bytes]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiebreak.review.folder.secrets", SimpleNamespace(token_urlsafe=token))  # here, and nowhere else
        yield
