"""Which folder a job has, and what becomes of what is in it."""

import json
from pathlib import Path

import pytest

from dlrun.config.compose import Composed
from dlrun.errors import UsageError
from dlrun.sweeps.jobs import Job
from dlrun.sweeps.record import SweepRecord
from dlrun.sweeps.running import Result, placed, unfinished


def job(seed: int) -> Job:
    return Job(seed, Composed({"seed": seed}, {}, Path()), f"seed={seed}")


def begin(folder: Path, identity: str, status: str | None = None) -> None:
    """What a run leaves in its folder."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "provenance.json").write_text(json.dumps({"run_id": identity}))
    if status:
        (folder / "summary.json").write_text(json.dumps({"status": status}))


def test_jobs_keep_their_folders_wherever_in_the_sweeps_they_are(tmp_path: Path):
    record = SweepRecord(tmp_path)
    with record.locked():
        jobs = placed([job(3), job(4)], record, lambda one: f"s{one.id}/run")
        record.begin({}, jobs)
        begin(jobs[0].composed.run_dir, jobs[0].id, "completed")
    again = SweepRecord(tmp_path)
    more = placed([job(5), job(4), job(3)], again, lambda one: f"s{one.id}/run")
    assert [one.number for one in more] == [2, 1, 0]
    assert more[2].composed.run_dir == jobs[0].composed.run_dir
    assert unfinished(more, Result(tmp_path, more)) == more[:2]


def test_what_is_no_run_in_a_jobs_folder_stays_but_for_the_traces_of_a_failure(tmp_path: Path):
    (tmp_path / "0").mkdir()
    for name in ("precious.txt", "summary.json", "traceback.txt"):
        (tmp_path / "0" / name).write_text('{"status": "failed"}')
    (one,) = placed([job(0)], SweepRecord(tmp_path), lambda one: str(one.number))
    assert unfinished([one], Result(tmp_path, [one])) == [one]
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["precious.txt"]


def test_a_folder_that_holds_another_run_is_refused(tmp_path: Path):
    begin(tmp_path / "0", "not this one", "completed")
    with pytest.raises(UsageError, match=r"holds another run; choose another hydra\.sweep\.dir"):
        placed([job(0)], SweepRecord(tmp_path), lambda one: str(one.number))


def test_two_jobs_do_not_share_a_folder(tmp_path: Path):
    with pytest.raises(UsageError, match=r"several jobs the folder same; .*hydra.job.num"):
        placed([job(0), job(1)], SweepRecord(tmp_path), lambda one: "same")


@pytest.mark.parametrize("name", [".", "..", "../elsewhere", "/tmp"])
def test_a_job_stays_in_the_sweeps_folder(name: str, tmp_path: Path):
    with pytest.raises(UsageError, match="must be a folder in the sweep's"):
        placed([job(0)], SweepRecord(tmp_path), lambda one: name)
