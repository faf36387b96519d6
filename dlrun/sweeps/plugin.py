"""dlrun's sweeper and launcher as Hydra's plugins, so that each also works with one of Hydra's own or another's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from dlrun.config.compose import SWEEP_DIR, Composed, unresolved
from dlrun.config.overrides import groups
from dlrun.config.sweep import OWN, JobComposer, is_own, label_of, plugin_settings, subfolder
from dlrun.sweeps.jobs import Job, score
from dlrun.sweeps.record import folder_for, sweep_id
from dlrun.sweeps.running import Result, View, run_sweep
from dlrun.sweeps.sampling import jobs_of


@dataclass
class Request:
    """What a sweep's user asked for beside Hydra's configuration, and what came of it.

    Attributes:
        asked: noted in sweep.json: "words", "config_path", "config_name", "config_dir", "cwd".
        many: whether more jobs than `max_jobs` are meant.
        results: of each call of the launcher; a sweeper of Hydra's may call it several times.
    """

    asked: Mapping[str, Any]
    view: View
    many: bool = False
    results: list[Result] = field(default_factory=list)


_request: ContextVar[Request] = ContextVar("_request")  # Hydra makes its plugins itself, by name, of settings alone


@contextmanager
def plugins_for(request: Request) -> Iterator[None]:
    """Make `hydra_plugins.dlrun.Sweeper` and `.Launcher` known to Hydra; those made in the block serve this request."""
    Plugins.instance().class_name_to_class.update({f"{OWN}Sweeper": Sweeper, f"{OWN}Launcher": Launcher})
    before = _request.set(request)
    try:
        yield
    finally:
        _request.reset(before)


class Sweeper(HydraSweeper):  # type: ignore[misc]
    """Every combination, pairs, or points of ranges; see conf/hydra/sweeper/dlrun.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.request = _request.get()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings = plugin_settings(config.hydra.sweeper, "sweeper")
        self.loader, self.config = hydra_context.config_loader, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        jobs = jobs_of(parsed, self.settings, many=self.request.many)
        if not is_own(self.config.hydra.launcher):
            Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        return [self.launcher.launch(jobs, initial_job_idx=0)]


class Launcher(HydraLauncher):  # type: ignore[misc]
    """Runs jobs in a pool of worker processes; see conf/hydra/launcher/dlrun.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.request = _request.get()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings = plugin_settings(config.hydra.launcher, "launcher")
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = self._jobs(job_overrides, initial_job_idx)
        result = run_sweep(
            jobs,
            self._folder(jobs),
            self.settings,
            self.request.asked,
            self.request.view,
            lambda job: subfolder(self.config, job.number, job.label, job.composed.config),
        )
        self.request.results.append(result)
        if result.status == "interrupted" and not is_own(self.config.hydra.sweeper):
            raise KeyboardInterrupt  # or it would ask for more
        numbers = {job.id: job.number for job in result.jobs}
        return [self._return(job, result.ended.get(numbers[job.id], ("interrupted", {}))) for job in jobs]

    def _folder(self, jobs: Sequence[Job]) -> Path:
        """Called by its jobs, unless `hydra.sweep.dir` says otherwise, or others will follow."""
        is_default = unresolved(self.config.hydra.sweep, "dir") == SWEEP_DIR
        if is_default and is_own(self.config.hydra.sweeper):
            return folder_for(sweep_id([job.id for job in jobs]), self.settings.fresh)
        return Path(str(self.config.hydra.sweep.dir)).expanduser()

    def _jobs(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        composer = JobComposer(self.loader, self.config)
        exclude = list(self.config.hydra.job.config.override_dirname.exclude_keys)
        node = OmegaConf.to_container(self.config.hydra, resolve=False, enum_to_str=True)
        assert isinstance(node, dict)
        choosable = groups(self.loader)
        jobs = []
        for number, overrides in enumerate(job_overrides, first):
            label = label_of(overrides, exclude)
            choices = dict(word.lstrip("+").split("=", 1) for word in overrides if "=" in word)
            chosen = {key: value for key, value in choices.items() if key in choosable}
            hydra = {
                **node,
                "mode": "MULTIRUN",
                "job": {**node["job"], "num": number, "id": str(number), "override_dirname": label},
                "overrides": {**node["overrides"], "task": list(overrides)},
                "runtime": {**node["runtime"], "choices": {**node["runtime"]["choices"], **chosen}},
            }
            composed = Composed(composer.config(overrides), hydra, Path(), list(overrides))
            jobs.append(Job(number, composed, label))
        return jobs

    @staticmethod
    def _return(job: Job, ended: tuple[str, dict[str, Any]]) -> JobReturn:
        """What a sweeper that optimizes wants to know: the monitored metric at its best."""
        _, value, _ = score(ended[1])
        done = JobReturn(overrides=job.composed.overrides, status=JobStatus.COMPLETED)
        done.return_value = float("nan") if value is None else value
        return done
