"""What a process asks of its interpreter; how it ends is tested by its commands (cli/test_ends.py)."""

from __future__ import annotations

import gc

import pytest

from tiebreak.training.interpreter import uncollected


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_is_looked_for_as_before_once_the_block_is_left(was_on):
    (gc.enable if was_on else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == was_on
        with pytest.raises(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
