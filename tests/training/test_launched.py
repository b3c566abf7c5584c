"""What a launcher set: how many processes there are, which of them speaks, and what is said of half a setting."""

from __future__ import annotations

import pytest

from tiebreak.config import DistributedConfig
from tiebreak.errors import ConfigError
from tiebreak.training import launched as there
from tiebreak.training.launched import is_beside_the_first, launched, leads, num_launched, refuse_several


def test_one_process_leads_trains_alone_and_is_refused_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (num_launched({}), leads({}), is_beside_the_first({})) == (1, True, False)
    with launched(DistributedConfig(strategy="single")) as company:
        assert company is not None
        assert company.ranks is None
    refuse_several("tiebreak sweep")


@pytest.mark.parametrize(
    ("rank", "local", "does_lead", "is_beside"),
    [("0", "0", True, False), ("1", "1", False, True), ("2", "0", False, False), ("3", "1", False, True)],
)
def test_the_first_process_leads_and_speaks_for_those_beside_it(rank, local, does_lead, is_beside):
    environment = {"WORLD_SIZE": "4", "RANK": rank, "LOCAL_RANK": local}
    assert num_launched(environment) == 4
    assert leads(environment) is does_lead
    assert is_beside_the_first(environment) is is_beside


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "-1"}])
def test_half_a_setting_of_a_launcher_is_one_line(environment):
    with pytest.raises(ConfigError, match=r"environment: WORLD_SIZE is \w+ and .*wanted numbers"):
        num_launched(environment)


def test_several_are_refused_where_one_is_wanted(monkeypatch):
    monkeypatch.setattr(there, "num_launched", lambda: 2)
    told = pytest.raises(ConfigError, match=r"distributed.strategy single: the launcher started 2 processes")
    with told, launched(DistributedConfig(strategy="single")):
        pass
    with pytest.raises(ConfigError, match=r"tiebreak sweep: the launcher started 2 processes"):
        refuse_several("tiebreak sweep")
