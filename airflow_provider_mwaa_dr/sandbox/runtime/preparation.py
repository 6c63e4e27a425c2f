"""Prepare the environments, databases and folders of a home before its Airflows start."""

from __future__ import annotations

import hashlib
import io
import secrets
import shlex
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from airflow_provider_mwaa_dr.aws.deploy.example_dags import example_dags
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings, process
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import (
    AirflowEnvironment,
    pack_provider,
    provide,
    provide_image,
)
from airflow_provider_mwaa_dr.sandbox.runtime.home import (
    CONTROL,
    USER,
    Blueprint,
    Home,
    Region,
    write_private_json,
)
from airflow_provider_mwaa_dr.sandbox.runtime.package_index import PackageIndex
from airflow_provider_mwaa_dr.sandbox.runtime.postgres import Postgres
from airflow_provider_mwaa_dr.sandbox.runtime.requirements_installation import install_requirements


class Preparation:
    """
    The steps of the preparation. Each is idempotent, and does not change what already exists.

    :param say: called with a line before each slow step.
    """

    def __init__(self, home: Home, postgres: Postgres, *, say: Callable[[str], object]) -> None:
        self._home = home
        self._postgres = postgres
        self._say = say

    def environments(self, blueprint: Blueprint, *, in_use: Collection[str]) -> None:
        """
        Create the environment of each Airflow version, with the provider that runs this code.

        :param in_use: Airflow versions whose environments run processes; these environments are not changed.
        """
        for version in blueprint.airflow_versions:
            if version not in in_use:
                provide(environment(self._home, version).bin.parent, version, say=self._say)

    def images(self, blueprint: Blueprint, regions: Iterable[Region]) -> None:
        """Create an environment for each of a bare home's *regions*, like MWAA's image: no package is added."""
        for region in regions:
            folder = region_environment(self._home, blueprint, region).bin.parent
            provide_image(folder, region.airflow_version, say=self._say)

    def forget(self, region: Region) -> None:
        """Remove the database, the DAGs and the plugins of a bare home's region. No process of it may run."""
        self._postgres.drop_database(region.name)
        for part in ("dags", "plugins"):
            shutil.rmtree(self._home.region_folder(region.name) / part, ignore_errors=True)

    def install(
        self, blueprint: Blueprint, region: Region, *, requirements: bytes | None, plugins: bytes | None
    ) -> None:
        """
        Install the requirements and the plugins of a bare home's region, as MWAA's containers do when they start.

        If the installation fails, Airflow starts without the packages. As in MWAA, only the log shows why.

        :param requirements: the content of requirements.txt; None if there is no such file.
        :param plugins: the content of plugins.zip; None if there is no such file.
        """
        home = self._home.region_folder(region.name)
        # The name of the log stream in MWAA.
        log = self._home.log(region.name, "requirements_install")
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home / "plugins", ignore_errors=True)
        (home / "plugins").mkdir(parents=True)
        try:
            if plugins is not None:
                with zipfile.ZipFile(io.BytesIO(plugins)) as archive:
                    archive.extractall(home / "plugins")
        except zipfile.BadZipFile as error:
            self._say(f"{region.name}: plugins.zip: {error}. Airflow starts without its content.")
        if requirements is None:
            return
        file = home / "requirements.txt"
        # /usr/local/airflow is Airflow's home in MWAA.
        file.write_bytes(requirements.replace(b"/usr/local/airflow", shlex.quote(str(home)).encode()))
        self.index.write_pages()
        if not install_requirements(region_environment(self._home, blueprint, region), file, self.index, log=log):
            problem = "requirements.txt could not be installed. Airflow starts without its packages"
            self._say(f"{region.name}: {problem}. See {log}.")

    def fill_index(self) -> None:
        """Put this package into the index of a bare home."""
        pack_provider(self.index.folder)
        self.index.write_pages()

    @property
    def index(self) -> PackageIndex:
        """Return the index with the packages for a bare home's regions that are not in the image."""
        return package_index(self._home)

    def databases(self, blueprint: Blueprint) -> None:
        """Create a migrated database for every region and for the control environment."""
        existing = set(self._postgres.databases())
        versions = {region.name: region.airflow_version for region in blueprint.regions.values()}
        versions[CONTROL] = blueprint.control_version
        for name, version in versions.items():
            if name in existing:
                continue
            template = f"airflow-{version}"
            if template not in existing:
                self._make_template(template, blueprint, environment(self._home, version))
                existing.add(template)
            self._postgres.create_database(name, template=template)

    def _make_template(self, template: str, blueprint: Blueprint, airflow: AirflowEnvironment) -> None:
        """Create an empty database of one Airflow version. This takes seconds; a copy of it takes a tenth of one."""
        self._say(f"creating the tables of Airflow {airflow.airflow_version}")
        part = f"{template}-part"
        self._postgres.drop_database(part)
        self._postgres.create_database(part)
        version = airflow.airflow_version
        folder = self._home.path / "template" / version
        region = next(region for region in blueprint.regions.values() if region.airflow_version == version)
        self._write_configuration(folder, part, region, is_control=True)
        commands = [["db", "migrate"]]
        if airflow.major < 3:
            names = {"username": USER, "password": blueprint.password, "role": "Admin", "email": "admin@example.com"}
            names |= {"firstname": "Sandbox", "lastname": "Admin"}
            commands.append(["users", "create", *(f"--{name}={value}" for name, value in names.items())])
        for command in commands:
            self._airflow(airflow, {"AIRFLOW_HOME": str(folder)}, command)
        if airflow.major < 3:
            # Airflow 2 checks the password at each call of its REST API, which takes longer than the call itself. In
            # MWAA the calls have a session, so there is no such delay.
            hashed = quick_hash(blueprint.password)
            self._postgres.query(f"update ab_user set password = '{hashed}' returning 1", database=part)
        # Rename it last, so that an interrupted migration leaves no template.
        self._postgres.rename_database(part, template)

    def _airflow(self, environment: AirflowEnvironment, variables: Mapping[str, str], command: Sequence[str]) -> None:
        """Run an Airflow command until it ends. :raises DRError: it failed; names the log."""
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
                f"airflow {command[0]} {command[1]} ended with {code}: {process.log_tail(log)}",
                advice=f"Its output is in {log}.",
            )

    def folders(self, blueprint: Blueprint, *, dags: Path | None) -> None:
        """
        Write every airflow.cfg, and copy DAG files into the DAGs folders.

        :param dags: copied into each region's DAGs folder; None to copy the example DAGs into an empty folder. A bare
            home copies no DAGs here: its DAGs come from the buckets.
        """
        for region in blueprint.regions.values():
            folder = self._home.region_folder(region.name)
            self._write_configuration(folder, region.name, region, is_control=False)
            write_private_json(folder / "passwords.json", {USER: blueprint.password})
            if not blueprint.bare and (dags is not None or not any((folder / "dags").iterdir())):
                _copy_folder(dags or example_dags(), folder / "dags")
        control = self._home.region_folder(CONTROL)
        self._write_configuration(control, CONTROL, blueprint.first, is_control=True)
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
    """Return a home's environment of an Airflow version, which may not exist yet."""
    return AirflowEnvironment(bin=home.path / f"airflow-{airflow_version}" / "bin", airflow_version=airflow_version)


def package_index(home: Home) -> PackageIndex:
    """Return the package index of a bare home."""
    return PackageIndex(home.path / "index")


def region_environment(home: Home, blueprint: Blueprint, region: Region) -> AirflowEnvironment:
    """Return the environment of a region's Airflow, which may not exist yet. A bare home has one for each region."""
    version = region.airflow_version
    if not blueprint.bare:
        return environment(home, version)
    return AirflowEnvironment(bin=home.path / f"airflow-{version}-{region.name}" / "bin", airflow_version=version)


def quick_hash(password: str) -> str:
    """
    Return the hash of a password as Flask-AppBuilder stores it, in werkzeug's format. A check takes a microsecond.

    This is safe enough for a random password and a server that only this machine can reach.
    """
    salt = secrets.token_hex(8)
    hashed = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 1).hex()
    return f"pbkdf2:sha256:1${salt}${hashed}"


def _copy_folder(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
