"""Two Airflows and an AWS on one machine: starting, killing, reviving and stopping them."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, RefusedError
from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.buckets import Buckets, dag_files
from airflow_provider_mwaa_dr.sandbox.cloud.faults import ALL_SERVICES, FaultKind
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings, health, process
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import (
    DEFAULT_VERSION,
    cache_folder,
    constraints,
    major,
)
from airflow_provider_mwaa_dr.sandbox.runtime.description import aws_config, sandbox_json
from airflow_provider_mwaa_dr.sandbox.runtime.home import (
    CONTROL,
    REGIONS,
    STATE_MODELS,
    STRONG,
    USER,
    Blueprint,
    Home,
    Region,
    is_free,
    new_blueprint,
    write_private_json,
)
from airflow_provider_mwaa_dr.sandbox.runtime.postgres import Postgres
from airflow_provider_mwaa_dr.sandbox.runtime.preparation import Preparation, region_environment
from airflow_provider_mwaa_dr.sandbox.runtime.process import ProcessSession

AWS = "aws"
AWS_SERVER = "aws-server"
START_DEADLINE_S = 420.0
LOCK_PATIENCE_S = 2 * START_DEADLINE_S
UPDATE_GRACE_S = 10.0
DEFAULT_LAG_S = 1.0
MAX_DATA_LAG_S = 3600


class Sandbox:
    """
    The sandbox in the folder *home*. All its data is in that folder, so different processes can call its methods.

    :param say: called with each line of progress; ignored by default.
    """

    def __init__(self, home: Path | str, *, say: Callable[[str], object] = str) -> None:
        self.home = Home(Path(home))
        self.say = say
        self.postgres = Postgres(self.home.path / "postgres" / "data")

    @property
    def faults_file(self) -> Path:
        """Return the file with the fault table of the emulated AWS."""
        return self.home.path / "aws" / "faults.json"

    def up(
        self,
        *,
        airflow: Mapping[str, str] | str | None = None,
        dags: Path | None = None,
        executor: str | None = None,
        schedulers: int | None = None,
        dr: Mapping[str, str] | None = None,
        state_model: str | None = None,
        lag_s: float = DEFAULT_LAG_S,
        data_lag_s: float | None = None,
        bare: bool | None = None,
        like_mwaa: bool | None = None,
        places: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """
        Start the sandbox, wait until both regions are healthy, and return the description.

        Idempotent: processes that run are not changed, missing ones are started, and a killed region is revived. After
        an error or Ctrl-C it stops the processes that it started itself.

        :param airflow: Airflow version of all regions, or by region. It cannot change once the home exists.
        :param dags: copied into each region's own DAGs folder; None to copy the example DAGs into an empty folder.
        :param executor: of all regions, one of :data:`.airflow_settings.EXECUTORS`; LocalExecutor by default, and
            CeleryExecutor with *like_mwaa*. It cannot change once the home exists.
        :param schedulers: number of schedulers in each region, one by default. It cannot change once the home exists.
        :param dr: settings in ``[dr]`` that differ from the sandbox's defaults. Fixed once the home exists.
        :param state_model: one of :data:`.home.STATE_MODELS`; None for the home's model, which is strong in a new home.
            It can change only while the sandbox is down.
        :param lag_s: for the eventual model, the longest time until a write is in the other regions.
        :param data_lag_s: the longest time until an object is in the bucket's replica, and the time that the switch of
            a global database takes. None for the home's value. It can change while the sandbox runs.
        :param bare: whether the regions are new MWAA environments without the provider, for ``mwaa-dr deploy``. None
            for the home's value, which is False in a new home. A bare home loses its data when its AWS stops: at the
            next start its environments are new and empty.
        :param like_mwaa: whether Airflow has the settings of MWAA's image, :func:`.airflow_settings.mwaa_settings`.
            This is slower. False by default. It cannot change once the home exists.
        :param places: AWS region by id of two sites. The sandbox begins with the first one active. None for the
            home's sites, which are two regions in a new home. They cannot change once the home exists.
        :return: the content of ``sandbox.json``.
        :raises ConfigError: the sandbox does not support a value, or the folder is not a sandbox.
        :raises RefusedError: the home has other values than the requested ones, or another command is running.
        :raises DRError: a component did not start; names it and its log.
        """
        if dags is not None and not dags.is_dir():
            raise ConfigError(f"{dags} is not a folder.", option="--dags", advice="Name a folder with DAG files.")
        known = places or (self.home.blueprint().regions if self.home.is_made else REGIONS)
        versions = _requested_versions(airflow, tuple(known))
        if executor not in {None, *airflow_settings.EXECUTORS}:
            raise ConfigError(
                f"The sandbox does not support the executor {executor}.",
                option="--executor",
                advice=f"Allowed are {', '.join(airflow_settings.EXECUTORS)}.",
            )
        if schedulers is not None and schedulers < 1:
            raise ConfigError(
                f"The number of schedulers is {schedulers}.", option="--schedulers", advice="Use 1 or more."
            )
        if state_model not in {None, *STATE_MODELS}:
            raise ConfigError(
                f"The state model {state_model} does not exist.",
                option="--state-model",
                advice=f"Allowed are {', '.join(STATE_MODELS)}.",
            )
        if not 0 <= lag_s <= 60:
            raise ConfigError(f"The lag is {lag_s:g} s.", option="--lag", advice="Use 0 to 60 seconds.")
        if data_lag_s is not None and not 0 <= data_lag_s <= MAX_DATA_LAG_S:
            raise ConfigError(
                f"The lag of the data is {data_lag_s:g} s.",
                option="--data-lag",
                advice=f"Use 0 to {MAX_DATA_LAG_S} seconds.",
            )
        if bare and state_model not in {None, STRONG}:
            raise ConfigError(
                f"A bare sandbox has no state table, so it cannot have the state model {state_model}.",
                option="--state-model",
                advice="mwaa-dr deploy creates the tables. Omit --state-model or --bare.",
            )
        with self.home.locked(), self._undone_on_failure():
            blueprint = self._blueprint(
                versions,
                executor=executor,
                schedulers=schedulers,
                dr=dr or {},
                bare=bare,
                like_mwaa=like_mwaa,
                places=places,
            )
            _require_possible(blueprint, state_model)
            if state_model is not None:
                blueprint = self._with_model(blueprint, None if state_model == STRONG else lag_s)
            if data_lag_s is not None:
                blueprint = replace(blueprint, data_lag_s=data_lag_s)
                self.home.make(blueprint)
            if self.is_up():
                self.say(f"both regions already run in {self.home}")
            elif not self._living_sessions():
                blueprint = self._with_usable_ports(blueprint)
            started_aws = self._start_aws(blueprint)
            if self.postgres.start():
                self.say("PostgreSQL is up")
            prepare = Preparation(self.home, self.postgres, say=self.say)
            if blueprint.bare and started_aws:
                self._forget_regions(blueprint, prepare)
            in_use = {
                blueprint.regions[name].airflow_version for name in blueprint.regions if self._living_sessions(name)
            }
            prepare.environments(blueprint, in_use=in_use)
            prepare.databases(blueprint)
            self._await_aws()
            if started_aws:
                self.say(f"AWS is up on port {blueprint.callers[CONTROL]} (control)")
            # Before the first read, because a killed region's AWS is a black hole for this process, too.
            self._remove_faults_of_stopped_regions()
            if not blueprint.bare:
                self._ensure_tables(blueprint)
            elif started_aws:
                blueprint = self._create_environments(blueprint)
            prepare.folders(blueprint, dags=dags)
            if blueprint.bare and dags is not None:
                self._put_dags(blueprint, dags)
            blueprint = self._start_regions(blueprint, list(blueprint.regions))
            return self._describe(blueprint)

    def kill(self, region: str) -> Mapping[str, Any]:
        """
        Kill all processes of a region's Airflow, also orphans, and make its AWS a black hole. Idempotent.

        :return: the content of ``sandbox.json``.
        :raises ConfigError: the region or the sandbox does not exist.
        """
        self._region(self.home.blueprint(), region)
        with self.home.locked():
            blueprint = self.home.blueprint()
            faults.change(
                self.faults_file,
                lambda table: faults.add(table, region=region, service=ALL_SERVICES, fault=FaultKind.BLACKHOLE),
            )
            process.end(self.home.sessions().get(region, {}).values(), grace_s=0)
            self.home.forget(region)
            self.say(f"{region}: killed; its AWS is a black hole")
            return self._describe(blueprint)

    def freeze(self, region: str) -> None:
        """
        Stop all processes of a region's Airflow (SIGSTOP), and make its AWS a black hole.

        :raises ConfigError: the region or the sandbox does not exist.
        """
        self._region(self.home.blueprint(), region)
        self.fault(region, ALL_SERVICES, FaultKind.BLACKHOLE.value)
        process.signal_all(self.home.sessions().get(region, {}).values(), signal.SIGSTOP)
        self.say(f"{region}: frozen; its AWS is a black hole")

    def thaw(self, region: str) -> None:
        """Let the processes of a frozen region continue (SIGCONT), and restore its AWS."""
        process.signal_all(self.home.sessions().get(region, {}).values(), signal.SIGCONT)
        self.fault(region, ALL_SERVICES, faults.NONE)
        self.say(f"{region}: continues")

    def revive(self, region: str) -> Mapping[str, Any]:
        """
        Start a killed region on its old ports, and restore its AWS. Returns when it is healthy. Idempotent.

        :return: the content of ``sandbox.json``.
        :raises ConfigError: the region or the sandbox does not exist.
        :raises RefusedError: the sandbox is down.
        :raises DRError: the region did not start.
        """
        self._region(self.home.blueprint(), region)
        with self.home.locked(), self._undone_on_failure():
            blueprint = self.home.blueprint()
            if not (self._aws_lives() and self.postgres.is_running()):
                raise RefusedError(f"The sandbox in {self.home} is down.", advice="Start it: mwaa-dr sandbox up.")
            self._remove_faults(region)
            blueprint = self._start_regions(blueprint, [region])
            return self._describe(blueprint)

    def update(self, region: str, changes: Mapping[str, Any]) -> None:
        """
        Apply an ``UpdateEnvironment`` to a bare home's environment: new files, options and processes.

        Waits for other commands. Returns when the region is healthy.

        :param changes: members of the request.
        :raises ConfigError: the region or the sandbox does not exist.
        :raises DRError: the changed environment did not start, and the old one was restored.
        """
        failed: Exception | None = None
        with self.home.locked(wait_s=LOCK_PATIENCE_S), self._undone_on_failure():
            blueprint = self.home.blueprint()
            before = self._region(blueprint, region)
            self.say(f"{region}: updating {', '.join(changes) or 'nothing'}")
            try:
                blueprint = self._rebuild(blueprint, replace(before, described={**before.described, **changes}))
            except (DRError, BotoCoreError, ClientError) as error:
                failed = error
                self.say(f"{region}: restoring the previous environment, because the update failed: {error}")
                blueprint = self._rebuild(self.home.blueprint(), before)
            self._describe(blueprint)
        # Outside the block, because the restored environment must keep running.
        if failed is not None:
            raise DRError(str(failed), advice=f"The logs are in {self.home.path / 'logs' / region}.") from failed

    def fault(
        self, region: str, service: str, fault: str, *, from_caller: str | None = None, to_target: str | None = None
    ) -> Sequence[faults.InjectedFault]:
        """
        Add a fault to a region's AWS, or remove it (``none``), and return the table of faults.

        :param region: a site: its calls, and its MWAA environment. Or an AWS region: the calls that it receives. If the
            region is the id of the site, both.
        :param from_caller: a site or ``control``.
        :param to_target: an AWS region, or a site, for its MWAA environment.
        :param fault: as on the command line: ``refuse``, ``blackhole``, ``delay:S``, ``throttle``, ``error``, ``deny``,
            ``expired``, ``none``.
        :raises ConfigError: the region, the caller or the fault does not exist.
        """
        blueprint = self.home.blueprint()
        targets = dict.fromkeys((*blueprint.callers, *blueprint.sites.aws_regions))
        # Another region than those of the sites' ids receives requests, and sends none.
        if to_target is not None or region not in targets:
            self._region(blueprint, region)
        for name, value, allowed in (("--from", from_caller, blueprint.callers), ("--to", to_target, targets)):
            if value is not None and value not in allowed:
                raise ConfigError(
                    f"The {'caller' if name == '--from' else 'target'} {value} does not exist.",
                    option=name,
                    advice=f"Allowed are {', '.join(allowed)}.",
                )
        kind = faults.parse_fault(fault)
        if kind is None:
            return faults.change(
                self.faults_file,
                lambda table: faults.remove(
                    table, region=region, service=service, from_caller=from_caller, to_target=to_target
                ),
            )
        return faults.change(
            self.faults_file,
            lambda table: faults.add(
                table,
                region=region,
                service=service,
                fault=kind[0],
                seconds=kind[1],
                from_caller=from_caller,
                to_target=to_target,
            ),
        )

    def down(self, *, purge: bool = False) -> bool:
        """
        Stop all processes that the sandbox started, and no others. Idempotent.

        :param purge: remove the home, too.
        :return: whether this call stopped or removed anything.
        :raises ConfigError: the folder is not a sandbox; nothing was changed.
        """
        if not self.home.path.exists():
            return False
        self._end_updates()
        with self.home.locked():
            changed = self._stop_all()
            if self.home.sandbox_json.exists() and not purge:
                self._describe(self.home.blueprint())
        if purge:
            self.home.remove()
            self.say(f"removed {self.home}")
        return changed or purge

    def is_up(self) -> bool:
        """Return whether AWS, databases and all processes of both regions run. Their health is not checked."""
        if not self.home.is_made:
            return False
        blueprint = self.home.blueprint()
        return (
            all(self._lives(region, blueprint) for region in blueprint.regions)
            and self._aws_lives()
            and self.postgres.is_running()
        )

    def description(self) -> Mapping[str, Any]:
        """
        Return the content of ``sandbox.json``.

        :raises ConfigError: the sandbox does not exist, or was never up.
        """
        self.home.blueprint()
        try:
            content: Mapping[str, Any] = json.loads(self.home.sandbox_json.read_text())
        except FileNotFoundError as error:
            raise ConfigError(
                f"The sandbox in {self.home} has never been up.", option="--home", advice="Run mwaa-dr sandbox up."
            ) from error
        return content

    def requests(self, region: str, service: str, *, since: datetime) -> Sequence[Mapping[str, Any]]:
        """Return the log entries of all requests to a service in *region* since *since*."""
        rows = map(json.loads, (self.home.path / "aws" / "requests.jsonl").read_text().splitlines())
        return [
            row
            for row in rows
            if (row["target"], row["service"]) == (region, service) and datetime.fromisoformat(row["at"]) >= since
        ]

    def addresses(self) -> Sequence[str]:
        """Return a line for each region's web UI, with its address and credentials."""
        blueprint = self.home.blueprint()
        return [
            f"{region.name}  Airflow {region.airflow_version}  {region.airflow_url}  {USER} / {blueprint.password}"
            for region in blueprint.regions.values()
        ]

    # Creating a home.

    def _blueprint(
        self,
        versions: Mapping[str, str],
        *,
        executor: str | None,
        schedulers: int | None,
        dr: Mapping[str, str],
        bare: bool | None,
        like_mwaa: bool | None,
        places: Mapping[str, str] | None,
    ) -> Blueprint:
        if not self.home.is_made:
            blueprint = new_blueprint(
                versions={site: versions.get(site, DEFAULT_VERSION) for site in places or REGIONS},
                executor=executor or (airflow_settings.CELERY if like_mwaa else airflow_settings.EXECUTORS[0]),
                schedulers=schedulers or 1,
                dr=dr,
                bare=bool(bare),
                like_mwaa=bool(like_mwaa),
                places=places,
            )
            _require_possible(blueprint, None)
            self.home.make(blueprint)
            return blueprint
        blueprint = self.home.blueprint()
        current_places = {name: region.place for name, region in blueprint.regions.items()}
        if places not in (None, current_places):
            raise RefusedError(
                f"The sandbox in {self.home} has the sites "
                f"{', '.join(f'{name} in {place}' for name, place in current_places.items())}.",
                advice="Remove it with mwaa-dr sandbox down --purge, or name another --home.",
            )
        is_like_mwaa = blueprint.first.like_mwaa
        for option, is_set, wanted in (("--bare", blueprint.bare, bare), ("--like-mwaa", is_like_mwaa, like_mwaa)):
            if wanted not in {None, is_set}:
                raise RefusedError(
                    f"The sandbox in {self.home} was created {'with' if is_set else 'without'} {option}.",
                    advice="Remove it with mwaa-dr sandbox down --purge, or name another --home.",
                )
        for name, region in blueprint.regions.items():
            for setting, current, requested in (
                ("Airflow", region.airflow_version, versions.get(name)),
                ("executor", region.executor, executor),
                ("number of schedulers", region.schedulers, schedulers),
            ):
                if requested not in {None, current}:
                    raise RefusedError(
                        f"The sandbox in {self.home} has {setting} {current} in {name}, not {requested}.",
                        advice="Remove it with mwaa-dr sandbox down --purge, or name another --home.",
                    )
        return blueprint

    def _with_model(self, blueprint: Blueprint, lag_s: float | None) -> Blueprint:
        """Return the blueprint with another state model; *lag_s* is None for the strong model."""
        if blueprint.lag_s == lag_s:
            return blueprint
        changed = replace(blueprint, lag_s=lag_s)
        if self._living_sessions():
            raise RefusedError(
                f"The sandbox in {self.home} runs with the {_model(blueprint)}, not with the {_model(changed)}.",
                advice="Stop it first: mwaa-dr sandbox down.",
            )
        self.home.make(changed)
        return changed

    def _forget_regions(self, blueprint: Blueprint, prepare: Preparation) -> None:
        """Stop and empty a bare home's regions: their buckets and updates were lost with the previous emulated AWS."""
        for region in blueprint.regions.values():
            process.end(self.home.sessions().get(region.name, {}).values(), grace_s=0)
            self.home.forget(region.name)
            prepare.forget(region)
        prepare.images(blueprint, blueprint.regions.values())
        prepare.fill_index()

    def _create_environments(self, blueprint: Blueprint) -> Blueprint:
        buckets = self._buckets(blueprint)
        regions = {
            name: replace(region, described=buckets.create(region)) for name, region in blueprint.regions.items()
        }
        blueprint = self._store(replace(blueprint, regions=regions))
        self.say(f"created two empty environments: {', '.join(region.environment for region in regions.values())}")
        return blueprint

    def _put_dags(self, blueprint: Blueprint, dags: Path) -> None:
        """Upload DAG files into a bare home's buckets, and return when the regions have copied them."""
        files = {path: (dags / path).read_bytes() for path in dag_files(dags)}
        for region in blueprint.regions.values():
            self._buckets(blueprint).put_dags(region, dags)
            folder = self.home.region_folder(region.name) / "dags"

            def missing(folder: Path = folder, region: Region = region) -> Sequence[str]:
                copied = {path for path in dag_files(folder) if (folder / path).read_bytes() == files.get(path)}
                return [f"{path} in {region.name}" for path in sorted(files.keys() - copied)]

            self._await(missing, self.home.sessions()[AWS], owner=AWS)

    def _rebuild(self, blueprint: Blueprint, region: Region) -> Blueprint:
        """Rebuild a bare home's region with the settings in *region*, and return when it is healthy."""
        described = region.described
        buckets = self._buckets(blueprint)
        files = [
            buckets.read(region, described[f"{name}S3Path"], described[f"{name}S3ObjectVersion"])
            if described.get(f"{name}S3Path")
            else None
            for name in ("Requirements", "Plugins")
        ]
        process.end(self.home.sessions().get(region.name, {}).values(), grace_s=2)
        self.home.forget(region.name)
        prepare = Preparation(self.home, self.postgres, say=self.say)
        prepare.images(blueprint, [region])
        prepare.install(blueprint, region, requirements=files[0], plugins=files[1])
        blueprint = self._store(replace(blueprint, regions={**blueprint.regions, region.name: region}))
        return self._start_regions(blueprint, [region.name])

    def _store(self, blueprint: Blueprint) -> Blueprint:
        """Store a blueprint, and write the emulated AWS's configuration."""
        self.home.make(blueprint)
        write_private_json(self.home.path / "aws" / "config.json", aws_config(blueprint))
        return blueprint

    def _buckets(self, blueprint: Blueprint) -> Buckets:
        return Buckets(airflow_settings.driver_variables(blueprint))

    def _end_updates(self) -> None:
        """End running updates, because they hold the lock. An update stops the processes that it started."""
        session = self.home.sessions().get(AWS, {}).get(AWS_SERVER)
        if session is not None:
            process.end_followers(session, grace_s=UPDATE_GRACE_S)

    def _with_usable_ports(self, blueprint: Blueprint) -> Blueprint:
        """Return the blueprint, with new ports if another program uses one of the ports now."""
        ports = [
            *(region.port for region in blueprint.regions.values()),
            *blueprint.callers.values(),
            *(port for targets in blueprint.web.values() for port in targets.values()),
        ]
        taken = [port for port in ports if not is_free(port)]
        if not taken:
            return blueprint
        self.say(f"another program uses port {taken[0]}; choosing new ports")
        places = {name: region.place for name, region in blueprint.regions.items()}
        fresh = new_blueprint(versions=dict.fromkeys(places, ""), executor="", schedulers=1, dr={}, places=places)
        regions = {name: replace(region, port=fresh.regions[name].port) for name, region in blueprint.regions.items()}
        blueprint = replace(blueprint, regions=regions, callers=fresh.callers, web=fresh.web)
        self.home.make(blueprint)
        return blueprint

    # Starting and stopping.

    def _start_aws(self, blueprint: Blueprint) -> bool:
        """Start the emulated AWS if it does not run, and return whether this call started it."""
        write_private_json(self.home.path / "aws" / "config.json", aws_config(blueprint))
        if self._aws_lives():
            return False
        log = self.home.log(AWS, AWS_SERVER)
        log.unlink(missing_ok=True)
        variables = airflow_settings.process_variables({}, bin_folder=Path(sys.executable).parent)
        package_parent = str(Path(airflow_provider_mwaa_dr.__file__).parent.parent)
        session = process.start(
            [sys.executable, "-m", "airflow_provider_mwaa_dr.sandbox.cloud.aws_server", "--home", str(self.home)],
            environment={**variables, "PYTHONPATH": package_parent, "MWAA_DR_CACHE": str(cache_folder())},
            log=log,
        )
        self.home.remember(AWS, AWS_SERVER, session)
        return True

    def _await_aws(self) -> None:
        session = self.home.sessions()[AWS][AWS_SERVER]
        log = self.home.log(AWS, AWS_SERVER)
        self._await(
            lambda: [] if "ready" in log.read_text(errors="replace").splitlines() else ["emulated AWS"],
            {AWS_SERVER: session},
            owner=AWS,
        )

    def _start_regions(self, blueprint: Blueprint, names: Sequence[str]) -> Blueprint:
        """Start the missing processes of several regions in parallel, and return when these regions are healthy."""
        since = {}
        started = {}
        for name in names:
            region = blueprint.regions[name]
            started[name] = self._start_region(blueprint, region)
            # Older heartbeats come from processes that were killed.
            since[name] = datetime.now(timezone.utc) - (timedelta() if started[name] else timedelta(seconds=30))
            if started[name]:
                self.say(f"{name}: starting {', '.join(started[name])} (Airflow {region.airflow_version})")
        waiting = {name: f"{name}: healthy" for name in names}
        progress = {name: health.Parsing(self.home.region_folder(name) / "dags") for name in names}

        def missing() -> Sequence[str]:
            found = []
            for name in list(waiting):
                parts = health.missing(blueprint.regions[name], since=since[name])
                if not parts and airflow_settings.WORKER in started[name] and not self._polls(name, since[name]):
                    parts = [airflow_settings.WORKER]
                if not parts:
                    parts = progress[name].missing(self.postgres, name, say=self.say)
                if parts:
                    found.append(f"{name}: {', '.join(parts)}")
                else:
                    self.say(waiting.pop(name))
            return found

        sessions = {
            f"{name} {component}": session
            for name in names
            for component, session in self.home.sessions()[name].items()
        }
        self._await(missing, sessions, owner="")
        regions = dict(blueprint.regions)
        for name in names:
            if major(regions[name].airflow_version) >= 3 and not regions[name].token:
                regions[name] = replace(regions[name], token=health.token(regions[name], blueprint.password))
        return self._store(replace(blueprint, regions=regions))

    def _polls(self, region: str, since: datetime) -> bool:
        """Return whether the Celery worker of a site whose id is its region has polled its queue since *since*."""
        return any(row["operation"] == "ReceiveMessage" for row in self.requests(region, "sqs", since=since))

    def _start_region(self, blueprint: Blueprint, region: Region) -> Sequence[str]:
        """Start the missing components of a region, and return their names."""
        bin_folder = region_environment(self.home, blueprint, region).bin
        folder = self.home.region_folder(region.name)
        variables = airflow_settings.process_variables(
            airflow_settings.airflow_variables(blueprint, folder, region=region), bin_folder=bin_folder
        )
        known = self.home.sessions().get(region.name, {})
        started = []
        for component, arguments in airflow_settings.components(region).items():
            if component in known and process.is_alive(known[component]):
                continue
            if component in known:
                process.end([known[component]], grace_s=0)
            session = process.start(
                [bin_folder / "airflow", *arguments],
                environment={
                    **variables,
                    "AIRFLOW_HOME": str(airflow_settings.component_home(folder, component, region=region)),
                },
                log=self.home.log(region.name, component),
            )
            self.home.remember(region.name, component, session)
            started.append(component)
        return started

    def _await(
        self, missing: Callable[[], Sequence[str]], sessions: Mapping[str, ProcessSession], *, owner: str
    ) -> None:
        """
        Wait until no part is missing.

        :param missing: returns the names of the missing parts.
        :raises DRError: a process ended, or the deadline passed; names the missing parts and the logs.
        """
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            dead = [name for name, session in sessions.items() if not process.is_alive(session)]
            if dead:
                where, _, component = dead[0].rpartition(" ")
                log = self.home.log(where or owner, component)
                raise DRError(
                    f"{dead[0]} ended while starting: {process.log_tail(log)}", advice=f"Its output is in {log}."
                )
            parts = missing()
            if not parts:
                return
            if time.monotonic() > deadline:
                raise DRError(
                    f"Not up after {START_DEADLINE_S:.0f} s: {'; '.join(parts)}.",
                    advice=f"The logs are in {self.home.path / 'logs'}.",
                )
            time.sleep(0.3)

    def _remove_faults_of_stopped_regions(self) -> None:
        """Remove the faults of the regions in which no process runs."""
        for region in self.home.blueprint().regions:
            if not self._living_sessions(region):
                self._remove_faults(region)

    def _remove_faults(self, region: str) -> None:
        if faults.load(self.faults_file):
            faults.change(self.faults_file, lambda table: faults.remove(table, region=region))

    @contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        """After an exception, stop the processes that were started inside this context, and no others."""
        before = {session for sessions in self.home.sessions().values() for session in sessions.values()}
        postgres_ran = self.postgres.folder.exists() and self.postgres.is_running()
        try:
            yield
        except BaseException:
            started = [
                session
                for sessions in self.home.sessions().values()
                for session in sessions.values()
                if session not in before
            ]
            started_postgres = not postgres_ran and self.postgres.folder.exists() and self.postgres.is_running()
            if started or started_postgres:
                self.say("stopping the started processes")
            process.end(started, grace_s=0)
            if started_postgres:
                self.postgres.stop()
            raise

    def _ensure_tables(self, blueprint: Blueprint) -> None:
        """Create missing tables. :raises DRError: the emulated AWS does not answer; names the region with a fault."""
        try:
            self._tables(blueprint).ensure(active=blueprint.first.name, saved=self._saved_tables, say=self.say)
        except (BotoCoreError, ClientError) as error:
            regions = sorted(
                {name for each in faults.load(self.faults_file) for name in (each.caller, each.target) if name}
            )
            raise DRError(
                f"The tables could not be created, because the emulated AWS did not answer: {error}.",
                advice=f"There is a fault. Remove it: mwaa-dr sandbox fault {regions[0]} all none."
                if regions
                else f"Its output is in {self.home.log(AWS, AWS_SERVER)}.",
            ) from error

    def _tables(self, blueprint: Blueprint) -> SandboxTables:
        return SandboxTables(airflow_settings.driver_variables(blueprint))

    @property
    def _saved_tables(self) -> Path:
        return self.home.path / "aws" / "state-table.json"

    def _stop_all(self) -> bool:
        living = self._living_sessions()
        if living:
            self.say(f"stopping {len(living)} processes")
        owners = self.home.sessions()
        # First the processes that use the databases and the AWS.
        process.end(
            [session for owner, known in owners.items() if owner != AWS for session in known.values()], grace_s=2
        )
        if self._aws_lives() and not self.home.blueprint().bare:
            # No region runs, so the faults would affect only this process.
            self._remove_faults_of_stopped_regions()
            try:
                self._tables(self.home.blueprint()).save(self._saved_tables)
            except (BotoCoreError, ClientError) as error:  # never up, or no answer
                self.say(f"the tables could not be saved ({error}); the next start uses the tables saved before")
        process.end(owners.get(AWS, {}).values(), grace_s=2)
        for owner in owners:
            self.home.forget(owner)
        postgres_ran = self.postgres.folder.exists() and self.postgres.is_running()
        if postgres_ran:
            self.postgres.stop()
        return bool(living) or postgres_ran

    def _living_sessions(self, owner: str | None = None) -> Sequence[ProcessSession]:
        """Return the sessions with a running process, of one owner or of all."""
        return [
            session
            for name, known in self.home.sessions().items()
            if owner in {None, name}
            for session in known.values()
            if process.members(session)
        ]

    def _lives(self, region: str, blueprint: Blueprint) -> bool:
        known = self.home.sessions().get(region, {})
        return all(
            component in known and process.is_alive(known[component])
            for component in airflow_settings.components(blueprint.regions[region])
        )

    def _aws_lives(self) -> bool:
        session = self.home.sessions().get(AWS, {}).get(AWS_SERVER)
        return session is not None and process.is_alive(session)

    def _region(self, blueprint: Blueprint, name: str) -> Region:
        try:
            return blueprint.regions[name]
        except KeyError as error:
            raise ConfigError(
                f"The sandbox has no region {name}.",
                option="region",
                advice=f"Its regions are {', '.join(blueprint.regions)}.",
            ) from error

    def _describe(self, blueprint: Blueprint) -> Mapping[str, Any]:
        """Write ``sandbox.json``, which other programs read, and return its content."""
        active = self._tables(blueprint).active_region() if self._aws_lives() else None
        content = sandbox_json(self.home, blueprint, self.postgres, active_region=active)
        write_private_json(self.home.sandbox_json, content)
        return content


def _model(blueprint: Blueprint) -> str:
    lag = "" if blueprint.lag_s is None else f" and a lag of {blueprint.lag_s:g} s"
    return f"{blueprint.state_model} state model{lag}"


def _require_possible(blueprint: Blueprint, state_model: str | None) -> None:
    """:raises ConfigError: the sandbox does not support this with sites that have names."""
    if not blueprint.sites.has_names:
        return
    if state_model not in {None, STRONG}:
        raise ConfigError(
            f"Sites with names have one state table, so they cannot have the state model {state_model}.",
            option="--state-model",
            advice="Omit --state-model, or use two regions.",
        )
    if blueprint.sites.share_region and blueprint.first.executor == airflow_settings.CELERY:
        raise ConfigError(
            f"Two sites in one region would share the queues of {airflow_settings.CELERY} in the emulated SQS.",
            option="--executor",
            advice=f"Use {airflow_settings.EXECUTORS[0]}, or two regions.",
        )


def _requested_versions(airflow: Mapping[str, str] | str | None, regions: Sequence[str]) -> Mapping[str, str]:
    """Return the requested Airflow versions by site. :raises ConfigError: an unsupported version or site."""
    versions = dict.fromkeys(regions, airflow) if isinstance(airflow, str) else dict(airflow or {})
    if unknown := set(versions) - set(regions):
        raise ConfigError(
            f"The sandbox has no region {', '.join(sorted(unknown))}.",
            option="--airflow",
            advice=f"Its regions are {', '.join(regions)}.",
        )
    for version in versions.values():
        constraints(version)
    return versions
