"""What tests of settlement by sagas begin with: each part's database, laid once and copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exchange.adapters.saga_journal import SagaJournal
from tests.exchange.saga_plant import files


@pytest.fixture(scope="session")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose tables are laid: copying it costs less than laying them."""
    path = tmp_path_factory.mktemp("laid") / "saga.sqlite"
    SagaJournal(path).close()
    return path


@pytest.fixture
def place(tmp_path: Path, laid: Path) -> Callable[[str], Path]:
    """Where each part keeps what is its own."""
    return files(tmp_path, laid)
