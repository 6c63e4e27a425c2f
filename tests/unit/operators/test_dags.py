"""PauseAllDagsOperator and UnpauseAllDagsOperator."""

from __future__ import annotations

import pytest

from tests.unit.core.dr_set import WANTED, World
from tests.unit.operators.conftest import with_hook

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr._compat import AirflowException, AirflowFailException
from airflow_provider_mwaa_dr.operators.dags import PauseAllDagsOperator, UnpauseAllDagsOperator

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def test_exactly_the_paused_dags_are_unpaused(dr_set: World) -> None:
    """The two DAGs that users paused stay paused, and the exempt DAG never changes."""
    ohio = dr_set.environments["us-east-2"]
    paused = with_hook(PauseAllDagsOperator(task_id="pause", region="us-east-2"), dr_set).execute({})
    assert paused == {"changed": True, "dags": sorted(WANTED)}
    assert ohio.unpaused == {"dr_failover"}
    unpaused = with_hook(UnpauseAllDagsOperator(task_id="unpause", region="us-east-2"), dr_set).execute({})
    assert unpaused == {"changed": True, "dags": sorted(WANTED)}
    assert ohio.unpaused == WANTED | {"dr_failover"}


@pytest.mark.parametrize("operator", [PauseAllDagsOperator, UnpauseAllDagsOperator])
@pytest.mark.parametrize("region", ["", "mars"])
def test_an_unknown_region_is_not_retried(dr_set: World, operator: type, region: str) -> None:
    """A retry would fail with the same error."""
    with pytest.raises(AirflowFailException):
        with_hook(operator(task_id="t", region=region), dr_set).execute({})


def test_a_region_that_does_not_answer_is_retried(dr_set: World) -> None:
    """It may answer the next time, and the set is stored."""
    dr_set.environments["us-east-2"].unreachable = True
    with pytest.raises(AirflowException) as raised:
        with_hook(PauseAllDagsOperator(task_id="pause", region="us-east-2"), dr_set).execute({})
    assert not isinstance(raised.value, AirflowFailException)


def test_the_region_is_a_template_field() -> None:
    """The value may come from params."""
    assert "region" in PauseAllDagsOperator.template_fields
    assert "region" in UnpauseAllDagsOperator.template_fields
