"""
The folder of one sandbox: its blueprint, its processes, and the lock for commands that change it.

``home.json`` has the blueprint (ports, secrets, versions), and ``processes.json`` has the processes. The sandbox writes
``sandbox.json``, for other programs, from both.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.sites import Site, Sites
from airflow_provider_mwaa_dr.exceptions import ConfigError, RefusedError
from airflow_provider_mwaa_dr.sandbox.runtime.process import ProcessSession

ACTIVE = "us-east-2"
STANDBY = "us-east-1"
REGIONS = (ACTIVE, STANDBY)
CONTROL = "control"
USER = "admin"
STRONG, EVENTUAL = "strong", "eventual"
STATE_MODELS = (STRONG, EVENTUAL)
DEFAULT_DATA_LAG_S = 5.0
"""Long enough that an object that has just been written is not in the bucket's replica."""
FORMAT = 1
BARE_NAMES = dict(zip(REGIONS, ("etl-primary", "etl-secondary"), strict=True))
"""Names of the environments of a bare home; docs/how-to/deploy.md uses them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """
    The blueprint of one site.

    :param name: id of the site.
    :param aws_region: its AWS region, if the id is a name; empty if the id is the region.
    :param port: of its API server (Airflow 2: webserver).
    :param secret: signs the sessions and tokens of this region only.
    :param token: bearer token for its REST API; empty before the first start, and in Airflow 2, which uses a password.
    :param described: in a bare home, further members of GetEnvironment's answer: bucket, files, options.
    :param like_mwaa: whether its Airflow has the settings of MWAA's image, instead of those that save time.
    """

    name: str
    environment: str
    airflow_version: str
    executor: str
    schedulers: int
    port: int
    secret: str
    fernet_key: str
    token: str = ""
    described: Mapping[str, Any] = field(default_factory=dict)
    like_mwaa: bool = False
    aws_region: str = ""

    @property
    def place(self) -> str:
        """Return its AWS region."""
        return self.aws_region or self.name

    @property
    def site(self) -> Site:
        """Return its identity in the DR set."""
        return Site(id=self.name, environment=self.environment, aws_region=self.place)

    @property
    def role(self) -> str:
        """Return the name of its execution role, in a bare home."""
        return f"{self.environment}-role"

    @property
    def bucket(self) -> str:
        """Return the name of its bucket, in a bare home."""
        return f"{self.environment}-bucket"

    @property
    def options(self) -> Mapping[str, str]:
        """Return its configuration options, in a bare home."""
        found: Mapping[str, str] = self.described.get("AirflowConfigurationOptions") or {}
        return found

    @property
    def airflow_url(self) -> str:
        """Return the address of its UI and REST API."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """
    The blueprint of a home.

    :param callers: the emulated AWS's port by caller: each region, and ``control``.
    :param web: ports of the environments' web servers, by caller and region.
    :param password: of the user ``admin`` in every Airflow of the home.
    :param dr: settings in ``[dr]`` that differ from the sandbox's defaults.
    :param lag_s: with eventual consistency, the longest time until a write is in the other regions' tables; None with
        strong consistency.
    :param data_lag_s: the longest time until an object is in the bucket's replica, and how long the switch of a global
        database takes.
    :param bare: the regions are new MWAA environments without the provider; an update installs it.
    """

    provider_version: str
    regions: Mapping[str, Region]
    callers: Mapping[str, int]
    web: Mapping[str, Mapping[str, int]]
    password: str
    dr: Mapping[str, str]
    lag_s: float | None = None
    data_lag_s: float = DEFAULT_DATA_LAG_S
    bare: bool = False
    format: int = FORMAT

    @property
    def state_model(self) -> str:
        """Return how the regions' tables are replicated, one of :data:`STATE_MODELS`."""
        return STRONG if self.lag_s is None else EVENTUAL

    @property
    def first(self) -> Region:
        """Return the site that is active at first; the control environment has its Airflow version and its region."""
        return next(iter(self.regions.values()))

    @property
    def second(self) -> Region:
        """Return the site that is the standby at first."""
        return list(self.regions.values())[1]

    @property
    def sites(self) -> Sites:
        """Return the sites of the DR set."""
        return Sites(region.site for region in self.regions.values())

    @property
    def control_version(self) -> str:
        """Return the Airflow version of the control environment."""
        return self.first.airflow_version

    @property
    def airflow_versions(self) -> Sequence[str]:
        """Return every Airflow version in use, each once."""
        return list(dict.fromkeys(region.airflow_version for region in self.regions.values()))


class Home:
    """The folder *path*. Keeps no data in memory, so that all processes read the same."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def sandbox_json(self) -> Path:
        """Return the file that describes the home for other programs."""
        return self.path / "sandbox.json"

    def region_folder(self, region: str) -> Path:
        """Return the AIRFLOW_HOME of a region, or of the control environment."""
        return self.path / CONTROL if region == CONTROL else self.path / "regions" / region

    def log(self, owner: str, component: str) -> Path:
        """Return the log file of a process."""
        return self.path / "logs" / owner / f"{component}.log"

    @property
    def is_made(self) -> bool:
        """Whether the folder is a sandbox's home."""
        return (self.path / "home.json").is_file()

    def blueprint(self) -> Blueprint:
        """
        Return the blueprint of the home.

        :raises ConfigError: the folder is not a sandbox, or another version of the provider created it.
        """
        self._refuse_strangers()
        if not self.is_made:
            raise ConfigError(
                f"There is no sandbox in {self.path}.", option="--home", advice="Start one: mwaa-dr sandbox up"
            )
        try:
            raw = json.loads((self.path / "home.json").read_text())
            if (raw["format"], raw["provider_version"]) == (FORMAT, __version__):
                return Blueprint(
                    **{**raw, "regions": {name: Region(**region) for name, region in raw["regions"].items()}}
                )
            problem = f"was created by version {raw['provider_version']} of the provider (this is {__version__})"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"has a damaged home.json ({error!r})"
        raise ConfigError(
            f"The sandbox in {self.path} {problem}.",
            option="--home",
            advice="Remove it with mwaa-dr sandbox down --purge, or name another --home.",
        )

    def make(self, blueprint: Blueprint) -> None:
        """Write the blueprint, and create the folder if it does not exist."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_private_json(self.path / "home.json", asdict(blueprint))

    def sessions(self) -> Mapping[str, Mapping[str, ProcessSession]]:
        """Return every remembered process, also processes that have ended, by owner and component."""
        try:
            raw = json.loads((self.path / "processes.json").read_text())
        except FileNotFoundError:
            return {}
        return {
            owner: {component: ProcessSession(**session) for component, session in components.items()}
            for owner, components in raw.items()
        }

    def remember(self, owner: str, component: str, session: ProcessSession) -> None:
        """Record a process that was just started."""
        known = {name: dict(components) for name, components in self.sessions().items()}
        known.setdefault(owner, {})[component] = session
        self._write_sessions(known)

    def forget(self, owner: str) -> None:
        """Remove the records of an owner's processes, which must have ended."""
        self._write_sessions({name: known for name, known in self.sessions().items() if name != owner})

    def remove(self) -> None:
        """Remove the folder and its content. No process may run in it."""
        self._refuse_strangers()
        if self.path.exists():
            shutil.rmtree(self.path)

    @contextmanager
    def locked(self, *, wait_s: float = 0) -> Iterator[None]:
        """
        Hold the lock of this home, so that no other command changes it.

        :param wait_s: how long to wait for another command.
        :raises RefusedError: another command holds the lock.
        """
        self._refuse_strangers()
        self.path.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_s
        with (self.path / ".lock").open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise RefusedError(
                            f"Another mwaa-dr sandbox command is running in {self.path}.",
                            advice="Wait until it has ended.",
                        ) from error
                time.sleep(0.2)
            yield

    def _refuse_strangers(self) -> None:
        """Refuse a folder with content that no sandbox wrote."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is not a folder.", option="--home", advice="Name another --home.")
        if not self.path.exists() or self.is_made:
            return
        others = [entry.name for entry in self.path.iterdir() if entry.name != ".lock"]
        if others:
            raise ConfigError(
                f"{self.path} is not a sandbox, and not empty ({', '.join(sorted(others)[:3])}). Nothing was changed.",
                option="--home",
                advice="Name another --home.",
            )

    def _write_sessions(self, sessions: Mapping[str, Mapping[str, ProcessSession]]) -> None:
        write_private_json(
            self.path / "processes.json",
            {
                owner: {component: asdict(session) for component, session in components.items()}
                for owner, components in sessions.items()
                if components
            },
        )


def new_blueprint(
    *,
    versions: Mapping[str, str],
    executor: str,
    schedulers: int,
    dr: Mapping[str, str],
    bare: bool = False,
    like_mwaa: bool = False,
    places: Mapping[str, str] | None = None,
) -> Blueprint:
    """
    Return the blueprint of a new home, with free ports and new secrets.

    :param versions: Airflow's, by site.
    :param places: AWS region by site, the site first that is active at first; None: the two :data:`REGIONS`.
    """
    places = places or dict(zip(REGIONS, REGIONS, strict=True))
    callers = (*places, CONTROL)
    ports = iter(free_ports(len(places) + len(callers) + len(callers) * len(places)))
    return Blueprint(
        provider_version=__version__,
        regions={
            region: Region(
                name=region,
                environment=BARE_NAMES.get(region, f"etl-{region}") if bare else f"sandbox-{region}",
                airflow_version=versions[region],
                executor=executor,
                schedulers=schedulers,
                port=next(ports),
                secret=secrets.token_hex(32),
                fernet_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
                like_mwaa=like_mwaa,
                aws_region="" if place == region else place,
            )
            for region, place in places.items()
        },
        callers={caller: next(ports) for caller in callers},
        web={caller: {region: next(ports) for region in places} for caller in callers},
        password=secrets.token_urlsafe(9),
        dr=dict(dr),
        bare=bare,
    )


def free_ports(number: int) -> Sequence[int]:
    """
    Return free ports on loopback.

    They are below the range that the kernel uses for outgoing connections, so that no connection takes the port of a
    region while that region is down.
    """
    found: list[int] = []
    candidates = random.sample(range(20_000, 30_000), 1000)  # not a secret  # nosec B311
    while len(found) < number:
        port = candidates.pop()
        if is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Return whether *port* is free on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_private_json(path: Path, content: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """
    Write a JSON file that only its owner may read. Atomic: readers get the old content or the new one.

    :param default: converts values that JSON does not support.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.touch(mode=0o600)
    part.write_text(json.dumps(content, indent=2, default=default) + "\n")
    part.replace(path)
