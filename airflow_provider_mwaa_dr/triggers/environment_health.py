"""Watching a region's health in the triggerer. Paths of triggers are stored in Airflow's database: they stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_mwaa_dr.core.documents import diagnosis_document
from airflow_provider_mwaa_dr.core.failover import Timing
from airflow_provider_mwaa_dr.core.health import Diagnosis, Health, HealthWatch, Strikes
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import is_worth_a_retry


class EnvironmentHealthTrigger(BaseTrigger):
    """
    Fires once the active region has been seen in one of some healths often enough in a row.

    The event is ``{"status": "success", "diagnosis"}``, or ``{"status": "error", "message", "is_worth_a_retry"}`` when
    looking is in vain. What was seen lies in memory: after a restart of the triggerer it begins anew. Each look is made
    in a thread of its own, so a region that hangs keeps no other trigger from running.

    :param until: the healths to wait for, ``failed``, ``healthy`` or both.
    :param strikes: looks in a row.
    :param quorum: failed signals that make the region failed.
    :param probe_interval: seconds between two probe runs; None for none.
    :param poke_interval: seconds between two looks.
    :param aws_conn_id, region_name, verify, botocore_config: as in the sensor.
    """

    def __init__(
        self,
        *,
        until: list[str],
        strikes: int,
        quorum: int,
        poke_interval: float,
        probe_interval: float | None = None,
        aws_conn_id: str | None = None,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.until = until
        self.strikes = strikes
        self.quorum = quorum
        self.poke_interval = poke_interval
        self.probe_interval = probe_interval
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._strikes = Strikes(strikes)
        self._said: tuple[Any, ...] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, plain values all of them."""
        return "airflow_provider_mwaa_dr.triggers.environment_health.EnvironmentHealthTrigger", {
            "until": self.until,
            "strikes": self.strikes,
            "quorum": self.quorum,
            "poke_interval": self.poke_interval,
            "probe_interval": self.probe_interval,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    @cached_property
    def hook(self) -> DRStateHook:
        """The way to the state and to the environments."""
        return DRStateHook(
            self.aws_conn_id, region_name=self.region_name, verify=self.verify, config=self.botocore_config
        )

    @cached_property
    def watch(self) -> HealthWatch:
        """Who looks. :raises DRError: the set is not known, or the state table does not answer yet."""
        hook = self.hook
        return HealthWatch(
            hook.store,
            hook.environment_names(),
            hook.environment,
            hook.clock,
            stands_in=hook.stands_in,
            quorum=self.quorum,
            silence_s=Timing.from_config(hook.settings).agent_silence_s,
            probe_every_s=self.probe_interval,
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is certain."""
        # In a thread of its own, as in ActiveRegionTrigger.
        look = sync_to_async(self.look, thread_sensitive=False)
        while (event := await look()) is None:
            await asyncio.sleep(self.poke_interval)
        yield TriggerEvent(event)

    def look(self) -> dict[str, Any] | None:
        """Look once, and return the event; None to go on."""
        try:
            diagnosis = self.watch.look()
        except DRError as error:
            if is_worth_a_retry(error):
                diagnosis = Diagnosis(region=None, health=Health.UNKNOWN, why=error.message)
            else:
                message = f"{type(error).__name__}: {error}"
                return {"status": "error", "message": message, "is_worth_a_retry": False}
        is_certain = self._strikes.add(diagnosis)
        self._say(diagnosis)
        if not is_certain or diagnosis.health.value not in self.until:
            return None
        return {"status": "success", "diagnosis": diagnosis_document(diagnosis)}

    def _say(self, diagnosis: Diagnosis) -> None:
        """Log what changed, and each strike; a wait may last for months."""
        said = diagnosis.region, diagnosis.health, [(reading.signal, reading.health) for reading in diagnosis.readings]
        strike = min(self._strikes.count, self.strikes) if diagnosis.health is Health.FAILED else 0
        if (said, strike) != self._said:
            self._said = said, strike
            of = f" ({strike} of {self.strikes} looks in a row)" if strike else ""
            self.log.info("%s%s", diagnosis, of)
