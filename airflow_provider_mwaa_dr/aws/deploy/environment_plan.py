"""Plan for one environment: its files, its options, its update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_mwaa_dr.aws.deploy import dr_options, plugins_archive, requirements_file
from airflow_provider_mwaa_dr.aws.deploy.bucket import Bucket
from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploymentStep, DeploySpec, Say, Try
from airflow_provider_mwaa_dr.aws.deploy.example_dags import ALWAYS_DEPLOYED, DEPLOYED, example_dags
from airflow_provider_mwaa_dr.aws.deploy.merged_file import FileChange, plan_file
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import POLL_S, ControlPlane, DeployedEnvironment
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.core.sites import Site
from airflow_provider_mwaa_dr.exceptions import DeploymentError, NotReadyError

OWN_REQUIREMENTS = "requirements.txt"
OWN_PLUGINS = "plugins.zip"
"""Names of these files, in a folder of the provider, for an environment that has none of its own."""
NOTHING_REQUIRED = b"# mwaa-dr undeploy left this file, which requires nothing: MWAA wants it to be there.\n"


class EnvironmentPlan:
    """
    The changes to one environment. Planning only reads; a step changes something only when it is carried out.

    :param try_requirements: tries a changed requirements.txt before anything is changed.
    :raises RefusedError: versioning of its bucket is not enabled.
    """

    def __init__(
        self, aws: Aws, environment: DeployedEnvironment, plane: ControlPlane, *, say: Say, try_requirements: Try
    ) -> None:
        self._aws = aws
        self._environment = environment
        self._plane = plane
        self._say = say
        self._try = try_requirements
        self._bucket = Bucket(aws, environment.region, environment.bucket)
        self._bucket.require_versions()
        self._started = False

    @property
    def is_clean(self) -> bool:
        """Whether the environment has no option of the provider, and is not busy. Its plugin then registers nothing."""
        return not dr_options.OURS & self._environment.options.keys() and not self._environment.is_busy

    def deploy_steps(self, spec: DeploySpec, options: Mapping[str, str]) -> Iterator[DeploymentStep]:
        """Yield the steps that deploy the provider to the environment."""
        requirements = self._requirements(
            lambda text: requirements_file.merge(b"" if text == NOTHING_REQUIRED else text, spec.requirement), spec
        )
        plugins = None
        if (wheel := spec.wheel) is not None:
            plugins = self._plugins(lambda archive: plugins_archive.merge(archive, wheel), spec)
        elif _came_as_wheel(requirements):
            plugins = self._plugins(plugins_archive.remove, spec)
        tried = self._try_out(requirements, plugins)
        yield self._dags_in(DEPLOYED if spec.with_dags else ALWAYS_DEPLOYED)
        yield from self._changes(
            plugins, requirements, dr_options.merge(self._environment.options, options), spec, tried
        )

    def removal_steps(self, spec: DeploySpec) -> Iterator[DeploymentStep]:
        """Yield the steps that remove the provider from the environment."""
        requirements = self._requirements(_without_ours, spec) if self._environment.requirements else None
        plugins = self._plugins(plugins_archive.remove, spec) if _came_as_wheel(requirements) else None
        yield self._dags_out()
        yield from self._changes(plugins, requirements, dr_options.remove(self._environment.options), spec)

    def wait(self) -> DeploymentStep:
        """Return the step that waits until the environment is updated."""

        def act() -> str:
            if self._started:
                # MWAA reports UPDATING only after a moment.
                self._aws.clock.sleep(POLL_S)
            environment = self._plane.wait_until_idle(self._say)
            if self._started and (environment.failure or environment.status != "AVAILABLE"):
                raise DeploymentError(
                    f"The update of {environment} failed, and MWAA restored the previous version of the environment "
                    f"({environment.status}): {environment.failure or 'MWAA gives no reason'}.",
                    advice="Correct the cause, then run the same command again.",
                )
            return f"{environment} is {environment.status}"

        return DeploymentStep(
            name=f"wait {self._environment.site.id}",
            detail=f"until {self._environment} is updated",
            act=act,
            waits=True,
        )

    def _requirements(self, change: Callable[[bytes], bytes], spec: DeploySpec) -> FileChange | None:
        return plan_file(
            self._bucket,
            self._environment.requirements,
            self._environment.requirements_version,
            own_key=own_key(self._environment.site, OWN_REQUIREMENTS),
            change=change,
            build_on=spec.build_on,
        )

    def _plugins(self, change: Callable[[bytes], bytes], spec: DeploySpec) -> FileChange | None:
        return plan_file(
            self._bucket,
            self._environment.plugins,
            self._environment.plugins_version,
            own_key=own_key(self._environment.site, OWN_PLUGINS),
            change=change,
            build_on=spec.build_on,
        )

    def _try_out(self, requirements: FileChange | None, plugins: FileChange | None) -> str:
        """
        Return what a trial of the changed requirements.txt showed; empty if it does not change.

        :raises RefusedError: pip cannot install it.
        """
        if requirements is None or not requirements.needs_upload:
            return ""
        self._say(f"{self._environment}: pip tries the merged requirements.txt ...")
        return self._try(
            self._environment.airflow_version, requirements.after, plugins.after if plugins else self._plugins_in_use()
        )

    def _plugins_in_use(self) -> bytes | None:
        """Return the content of plugins.zip, to whose files requirements.txt may refer; None if there is none."""
        if not self._environment.plugins:
            return None
        found = self._bucket.get(self._environment.plugins, version=self._environment.plugins_version)
        return found.content if found else None

    def _changes(
        self,
        plugins: FileChange | None,
        requirements: FileChange | None,
        options: Mapping[str, str],
        spec: DeploySpec,
        tried: str = "",
    ) -> Iterator[DeploymentStep]:
        site = self._environment.site.id
        versions: dict[str, str] = {}
        changes: dict[str, Any] = {}
        warnings = dr_options.other_ids(self._environment.options, options, site)
        lines: list[str] = list(warnings)
        files = (
            ("plugins", "PluginsS3Path", "PluginsS3ObjectVersion", plugins, _plugin_lines),
            ("requirements", "RequirementsS3Path", "RequirementsS3ObjectVersion", requirements, _requirement_lines),
        )
        for name, path, version, change, describe in files:
            if change is None:
                continue
            where = f"{change.bucket}/{change.key}"
            if change.needs_upload:
                yield DeploymentStep(
                    name=f"{name} {site}",
                    detail=f"write a new version of {where}",
                    lines=(*describe(change), *([f"  {tried}"] if tried and name == "requirements" else [])),
                    act=partial(_upload, change, versions, version),
                )
            else:
                yield DeploymentStep(name=f"{name} {site}", detail=f"exists: {where}")
                versions[version] = change.version or ""
            if not change.is_in_use:
                changes[path] = change.key
                changes[version] = None
                lines.append(f"{path}: {where}, in the version above")
        if options != self._environment.options:
            changes["AirflowConfigurationOptions"] = dict(options)
            lines += dr_options.changes(self._environment.options, options)
            if self._environment.managed_by:
                undone = (
                    "removes them. The plugin then registers nothing, and a standby executes each DAG that is unpaused "
                    "there"
                    if "dr.enabled" in options
                    else "sets them again"
                )
                lines.append(
                    f"WARNING: {self._environment.managed_by} manages this environment: make the same changes of the "
                    f"options there, or its next update {undone}"
                )
            others = len(self._environment.options.keys() - dr_options.OURS)
            lines += [f"  {others} other options are kept unchanged"] * (others > 0)
        if not changes:
            yield DeploymentStep(
                name=f"update {site}", detail=f"{self._environment} needs no update", lines=tuple(warnings)
            )
            return
        if spec.worker_replacement:
            changes["WorkerReplacementStrategy"] = spec.worker_replacement
        self._require_idle()

        def act() -> str:
            self._plane.update({name: versions[name] if value is None else value for name, value in changes.items()})
            self._started = True
            return f"started the update of {self._environment}; it takes 20 to 30 minutes"

        yield DeploymentStep(name=f"update {site}", detail=f"update {self._environment}", lines=tuple(lines), act=act)

    def _require_idle(self) -> None:
        """:raises NotReadyError: the environment is busy, and MWAA would refuse an update."""
        if self._environment.is_busy:
            raise NotReadyError(
                f"{self._environment} is {self._environment.status}, and accepts no update now. Nothing was changed.",
                why=[f"{self._environment} is {self._environment.status}"],
                advice="Run the same command again when it is AVAILABLE, or now with --wait.",
            )

    def _dags_in(self, names: Sequence[str]) -> DeploymentStep:
        folder = example_dags()
        writes = []
        for name in names:
            content = (folder / name).read_bytes()
            found = self._bucket.get(f"{self._environment.dags}/{name}")
            if found is None or found.content != content:
                writes.append((name, content, found is not None))
        where = f"{self._bucket}/{self._environment.dags}"
        step = f"dags {self._environment.site.id}"
        if not writes:
            return DeploymentStep(name=step, detail=f"exist: {', '.join(names)} in {where}")

        def act() -> str:
            for name, content, _ in writes:
                self._bucket.put(f"{self._environment.dags}/{name}", content)
            return f"wrote to {where}: {', '.join(name for name, _, _ in writes)}"

        return DeploymentStep(
            name=step,
            detail=f"write to {where}",
            lines=tuple(
                f"+ {name}" + (" (replaces a different version, which the bucket keeps)" if replaces else "")
                for name, _, replaces in writes
            ),
            act=act,
        )

    def _dags_out(self) -> DeploymentStep:
        folder = example_dags()
        ours: list[str] = []
        changed: list[str] = []
        for name in DEPLOYED:
            found = self._bucket.get(f"{self._environment.dags}/{name}")
            if found is not None:
                (ours if found.content == (folder / name).read_bytes() else changed).append(name)
        where = f"{self._bucket}/{self._environment.dags}"
        step = f"dags {self._environment.site.id}"
        lines = [
            f"{name} is kept, because it was edited; Airflow cannot import it without the package" for name in changed
        ]
        if not ours:
            return DeploymentStep(name=step, detail=f"no unchanged example DAGs in {where}", lines=tuple(lines))

        def act() -> str:
            for name in ours:
                self._bucket.delete(f"{self._environment.dags}/{name}")
            return f"removed from {where}: {', '.join(ours)}; the bucket keeps their versions"

        return DeploymentStep(
            name=step, detail=f"remove from {where}", lines=(*(f"- {name}" for name in ours), *lines), act=act
        )


def own_key(site: Site, name: str) -> str:
    """Return the key of a file that only the provider writes. Two sites may share a bucket, if their ids are names."""
    return f"mwaa-dr/{site.id}/{name}" if site.is_named else f"mwaa-dr/{name}"


def _without_ours(text: bytes) -> bytes:
    return requirements_file.remove(text) or (NOTHING_REQUIRED if text else text)


def _came_as_wheel(requirements: FileChange | None) -> bool:
    """
    Whether an earlier deployment added a wheel to plugins.zip. Without one, the plan does not read that large file.
    """
    lines = requirements_file.our_lines(requirements.before) if requirements else ()
    return any(line.startswith("--find-links") for line in lines)


def _upload(change: FileChange, versions: dict[str, str], name: str) -> str:
    versions[name] = change.upload()
    return f"wrote {change.bucket}/{change.key}, version {versions[name]}"


def _requirement_lines(change: FileChange) -> list[str]:
    before, after = requirements_file.our_lines(change.before), requirements_file.our_lines(change.after)
    return [
        *(f"- {line}" for line in before if line not in after),
        *(f"+ {line}" for line in after if line not in before),
        "  all other bytes are kept unchanged",
    ]


def _plugin_lines(change: FileChange) -> list[str]:
    before, after = plugins_archive.wheels_in(change.before), plugins_archive.wheels_in(change.after)
    return [
        *(f"- {name}" for name in before if name not in after),
        *(f"+ {name}" for name in after if name not in before),
        "  all other files are kept unchanged",
    ]
