"""Everything that a home needs before its Airflows can start: environments, databases, folders."""

from __future__ import annotations

import hashlib
import io
import secrets
import shlex
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from airflow_provider_mwaa_dr.aws.example_dags import example_dags
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox import airflow_settings, process
from airflow_provider_mwaa_dr.sandbox.airflow_environment import (
    AirflowEnvironment,
    install_requirements,
    provide,
    provide_image,
)
from airflow_provider_mwaa_dr.sandbox.home import ACTIVE, CONTROL, USER, Blueprint, Home, Region, write_private_json
from airflow_provider_mwaa_dr.sandbox.postgres import Postgres


class Preparation:
    """
    The steps, each repeatable: what is there already is left alone.

    :param say: is told what takes long, a line each.
    """

    def __init__(self, home: Home, postgres: Postgres, *, say: Callable[[str], object]) -> None:
        self._home = home
        self._postgres = postgres
        self._say = say

    def environments(self, blueprint: Blueprint, *, in_use: Collection[str]) -> None:
        """
        Make the environment of each Airflow version, with the provider of now.

        :param in_use: Airflow versions in whose environment something runs; those are left as they are.
        """
        for version in blueprint.airflow_versions:
            if version not in in_use:
                provide(environment(self._home, version).bin.parent, version, say=self._say)

    def images(self, blueprint: Blueprint, regions: Iterable[Region]) -> None:
        """Make the environment of each of a bare home's *regions* as MWAA's image has it, nothing installed."""
        for region in regions:
            folder = region_environment(self._home, blueprint, region).bin.parent
            provide_image(folder, region.airflow_version, say=self._say)

    def forget(self, region: Region) -> None:
        """Remove what a bare home's region remembers: its database, its DAGs, its plugins. Nothing may run there."""
        self._postgres.drop_database(region.name)
        for part in ("dags", "plugins"):
            shutil.rmtree(self._home.region_folder(region.name) / part, ignore_errors=True)

    def install(self, blueprint: Blueprint, region: Region, *, requirements: bytes, plugins: bytes | None) -> None:
        """
        Bring into a bare home's region what its files ask for, as the start of its containers does.

        What cannot be installed is a line in a log, and Airflow starts without it: so does MWAA.

        :param plugins: plugins.zip; None: there is none.
        """
        home = self._home.region_folder(region.name)
        log = self._home.log(region.name, "requirements")
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home / "plugins", ignore_errors=True)
        (home / "plugins").mkdir(parents=True)
        try:
            if plugins is not None:
                with zipfile.ZipFile(io.BytesIO(plugins)) as archive:
                    archive.extractall(home / "plugins")
        except zipfile.BadZipFile as error:
            self._complain(region, log, f"plugins.zip: {error}")
        file = home / "requirements.txt"
        # Where MWAA has Airflow's home.
        file.write_bytes(requirements.replace(b"/usr/local/airflow", shlex.quote(str(home)).encode()))
        its = region_environment(self._home, blueprint, region)
        if not install_requirements(its, file, self.index, log=log):
            self._complain(region, log, "requirements.txt could not be installed")

    @property
    def index(self) -> Path:
        """Return the folder in which a bare home's regions find packages that the image lacks."""
        return self._home.path / "index"

    def _complain(self, region: Region, log: Path, what: str) -> None:
        with log.open("a") as output:
            output.write(f"{what}\n")
        self._say(f"{region.name}: {what}; Airflow starts without, see {log}")

    def databases(self, blueprint: Blueprint) -> None:
        """Give every region, and the control environment, a database that its Airflow version has migrated."""
        existing = set(self._postgres.databases())
        wanted = {region.name: region.airflow_version for region in blueprint.regions.values()}
        wanted[CONTROL] = blueprint.control_version
        for name, version in wanted.items():
            if name in existing:
                continue
            template = f"airflow-{version}"
            if template not in existing:
                self._make_template(template, blueprint, environment(self._home, version))
                existing.add(template)
            self._postgres.create_database(name, template=template)

    def _make_template(self, template: str, blueprint: Blueprint, its: AirflowEnvironment) -> None:
        """Make an empty database of one Airflow version; it takes seconds, a copy of it a tenth of one."""
        self._say(f"creating the tables of Airflow {its.airflow_version}")
        part = f"{template}-part"
        self._postgres.drop_database(part)
        self._postgres.create_database(part)
        folder = self._home.path / "template" / its.airflow_version
        region = next(region for region in blueprint.regions.values() if region.airflow_version == its.airflow_version)
        self._write_configuration(folder, part, region, is_control=True)
        commands = [["db", "migrate"]]
        if its.major < 3:
            names = {"username": USER, "password": blueprint.password, "role": "Admin", "email": "admin@example.com"}
            names |= {"firstname": "Sandbox", "lastname": "Admin"}
            commands.append(["users", "create", *(f"--{name}={value}" for name, value in names.items())])
        for command in commands:
            self._airflow(its, {"AIRFLOW_HOME": str(folder)}, command)
        if its.major < 3:
            # Airflow 2 checks the password of each call of its REST API, which takes longer than the call; MWAA, whose
            # calls come with a session, has nothing of that kind.
            hashed = quick_hash(blueprint.password)
            self._postgres.query(f"update ab_user set password = '{hashed}' returning 1", database=part)
        # Only now: an interrupted migration leaves no template that looks complete.
        self._postgres.rename_database(part, template)

    def _airflow(self, environment: AirflowEnvironment, variables: Mapping[str, str], command: Sequence[str]) -> None:
        """Run an Airflow command to its end. :raises DRError: it failed; carries where its output is."""
        log = self._home.log("setup", command[0])
        session = process.start(
            [environment.bin / "airflow", *command],
            environment=airflow_settings.process_variables(variables, bin_folder=environment.bin),
            log=log,
        )
        try:
            code = process.wait(session)
        except BaseException:
            process.end([session], grace_s=0)
            raise
        if code != 0:
            raise DRError(
                f"airflow {command[0]} {command[1]} ended with {code}: {process.last_words(log)}",
                advice=f"Its output is in {log}.",
            )

    def folders(self, blueprint: Blueprint, *, dags: Path | None) -> None:
        """
        Write every airflow.cfg, and put DAG files where they belong.

        :param dags: copied into each region's DAGs folder; None: the example DAGs, where that folder is empty. In a
            bare home that folder is the bucket's.
        """
        for region in blueprint.regions.values():
            folder = self._home.region_folder(region.name)
            self._write_configuration(folder, region.name, region, is_control=False)
            write_private_json(folder / "passwords.json", {USER: blueprint.password})
            if not blueprint.bare and (dags is not None or not any((folder / "dags").iterdir())):
                _copy_folder(dags or example_dags(), folder / "dags")
        control = self._home.region_folder(CONTROL)
        self._write_configuration(control, CONTROL, blueprint.regions[ACTIVE], is_control=True)
        _copy_folder(example_dags(), control / "dags")

    def _write_configuration(self, folder: Path, database: str, region: Region, *, is_control: bool) -> None:
        airflow_settings.write_configuration(
            folder,
            database_url=self._postgres.url(database),
            async_url=self._postgres.url(database, driver="asyncpg"),
            region=region,
            is_control=is_control,
        )


def environment(home: Home, airflow_version: str) -> AirflowEnvironment:
    """Return a home's environment of an Airflow version, made or not."""
    return AirflowEnvironment(bin=home.path / f"airflow-{airflow_version}" / "bin", airflow_version=airflow_version)


def region_environment(home: Home, blueprint: Blueprint, region: Region) -> AirflowEnvironment:
    """Return the environment in which a region's Airflow runs, made or not; a bare home's regions have their own."""
    its = environment(home, region.airflow_version)
    if not blueprint.bare:
        return its
    return AirflowEnvironment(
        bin=home.path / f"airflow-{its.airflow_version}-{region.name}" / "bin", airflow_version=its.airflow_version
    )


def quick_hash(password: str) -> str:
    """
    Return what Flask-AppBuilder stores of a password, in werkzeug's format, made and checked in a microsecond.

    Good enough for one that is random, and for a server that only this machine reaches.
    """
    salt = secrets.token_hex(8)
    hashed = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 1).hex()
    return f"pbkdf2:sha256:1${salt}${hashed}"


def _copy_folder(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
