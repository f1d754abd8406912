"""The engine slurm: with stand-ins for Slurm's commands, and with a cluster on the loopback."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import time

import pytest

from dplq.errors import UserError
from dplq.experiments.engines import Job, engine_settings, open_engine
from dplq.experiments.engines.base import THREADS
from dplq.experiments.engines.slurm import engine as slurm_engine
from dplq.experiments.engines.slurm import queue
from dplq.experiments.engines.slurm.queue import JobState
from dplq.experiments.engines.slurm.settings import minutes
from dplq.experiments.engines.slurm.task import Task

# Each notes how it was called; sbatch numbers its jobs, squeue prints the file `states`.
STAND_INS = {
    "sbatch": "test -s refusal && { cat refusal >&2; exit 1; }\nn=$(grep -c sbatch calls)\n"
    'cp "$1" script$n; echo "Submitted batch job $n"',
    "squeue": "test -s broken && { cat broken >&2; exit 1; }\ncat states",
    "scancel": 'for job; do echo "$job|CANCELLED|0|None"; done > states',
    "srun": "",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for the commands of Slurm, in whose folder their files are."""
    pytest.importorskip("submitit")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, lines in STAND_INS.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\ncd "{folder}"\necho {name} "$@" >> calls\n{lines}\n')
        path.chmod(0o755)
    (folder / "states").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_engine, "POLL", 0.0)
    monkeypatch.setattr(slurm_engine, "TICK", 0.01)
    return folder


def job(folder, name="job", command=("true",), **environment):
    return Job(name, command, environment, folder / "logs" / f"{name}.txt")


def states(slurm, *rows):
    (slurm / "states").write_text("".join(f"{row}\n" for row in rows))


def calls(slurm, name):
    lines = (slurm / "calls").read_text().splitlines()
    return [line for line in lines if line.startswith(name)]


def test_jobs_started_together_are_one_array(slurm, tmp_path):
    engine = open_engine("slurm", {"partition": "gpu", "parallel": "2"})
    assert engine.slots == 2
    for name in ("a", "b", "c"):
        engine.start(job(tmp_path, name))
    states(slurm, *(f"1_{index}|RUNNING|0|None" for index in range(3)))
    assert engine.wait(0) == []
    script = (slurm / "script1").read_text()
    assert "#SBATCH --array=0-2%2\n" in script
    assert "#SBATCH --partition=gpu\n" in script
    states(slurm, "1_0|COMPLETED|0|None", "1_1|FAILED|512|NonZeroExitCode", "1_2|RUNNING|0|None")
    ended = {end.job.name: (end.code, end.reason) for end in engine.wait(5)}
    assert ended["a"] == (0, "")
    assert ended["b"][0] == 2
    states(slurm, "1_2|COMPLETED|0|None", "9_0|FAILED|256|None")
    assert [(end.job.name, end.code) for end in engine.wait(5)] == [("c", 0)]
    assert engine.wait(5) == [], "nothing is under way, so nothing is waited for"
    assert len(calls(slurm, "sbatch")) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"setup": ["module load cuda"], "extra": {"constraint": "a100", "exclusive": True}},
        {"setup": "module load cuda", "extra": "constraint=a100 exclusive"},
    ],
)
def test_options_are_parameters_of_sbatch(slurm, tmp_path, more):
    options = {
        **{"account": "lab", "qos": "low", "time": "1-00:00:00", "cpus": "4", "gpus": "2"},
        **{"memory": "32G"},
    }
    engine = open_engine("slurm", options | more)
    engine.start(job(tmp_path))
    engine.wait(0)
    script = (slurm / "script1").read_text()
    lines = [line for line in script.splitlines() if not line.startswith("#SBATCH --error")]
    wanted = [
        *("--account=lab", "--constraint=a100", "--cpus-per-task=4", "--exclusive"),
        *("--gpus-per-node=2", "--job-name=dplq", "--mem=32G", "--nodes=1", "--open-mode=append"),
    ]
    found = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    found = [line for line in found if not line.startswith("--output")]
    assert found == [*wanted, "--qos=low", "--requeue", "--signal=USR2@60", "--time=1440"]
    assert "\nmodule load cuda\n" in script
    assert " --cpus-per-task=4 " in script.splitlines()[-1], "srun does not inherit it"


def test_without_requeue_sbatch_is_told(slurm, tmp_path):
    engine = open_engine("slurm", {"requeue": False})
    engine.start(job(tmp_path))
    states(slurm, "1|RUNNING|0|None")
    engine.wait(0)
    script = (slurm / "script1").read_text()
    assert "#SBATCH --no-requeue\n" in script
    assert "--requeue" not in script.replace("--no-requeue", "")
    states(slurm, "1|PREEMPTED|15|None")
    (end,) = engine.wait(5)
    assert (end.code, end.reason) == (143, "another job took its place")


@pytest.mark.parametrize(
    ("row", "code", "reason"),
    [
        ("OUT_OF_MEMORY|9|OutOfMemory", 143, "out of memory: give more with the option memory"),
        ("CANCELLED|0|None", 143, "cancelled (scancel)"),
        ("DEADLINE|0|DeadLine", 143, "its deadline passed"),
        ("FAILED|9|None", 137, ""),
        ("FAILED|0|LaunchFailure", 1, ""),
        ("FAILED|35072|NonZeroExitCode", 137, ""),
    ],
)
def test_a_failed_job_has_its_code_and_the_reason_in_words(slurm, tmp_path, row, code, reason):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    (tmp_path / "logs/job.txt").touch()
    states(slurm, f"1|{row}")
    (end,) = engine.wait(5)
    assert (end.code, end.reason) == (code, reason)


def test_a_job_that_wrote_no_log_did_not_start(slurm, tmp_path):
    engine = open_engine("slurm", {"folder": str(tmp_path / "files")})
    engine.start(job(tmp_path))
    states(slurm, "1|FAILED|256|NonZeroExitCode")
    (end,) = engine.wait(5)
    assert end.reason.startswith("it did not start: see ")
    assert end.reason.endswith("1_0_log.err")
    assert str(tmp_path / "files") in end.reason


def test_a_user_without_a_name_has_a_number(slurm, tmp_path, monkeypatch):
    """As in a container whose uid has no entry in passwd."""

    def nobody():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    engine = open_engine("slurm", {"folder": str(tmp_path / "files")})
    engine.start(job(tmp_path))
    states(slurm, "1|RUNNING|0|None")
    engine.wait(0.1)
    assert [path.name for path in (tmp_path / "files").iterdir()] == [f"uid{os.getuid()}"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "abc"}, "'abc' is no time limit"),
        ({"time": "2"}, "'2' is less than 3 minutes"),
        ({"extra": "array=3"}, "array is not to be given there"),
        ({"requeue": "no"}, "; write true or false."),
    ],
)
def test_options_are_checked_before_an_engine_is_opened(options, said):
    """So that --dry-run names what is wrong, without Slurm."""
    with pytest.raises(UserError) as error:
        engine_settings("slurm", options)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "row",
    ["1|NODE_FAIL|0|None", "1|PREEMPTED|15|None", "1|TIMEOUT|0|TimeLimit", "1|FAILED|36608|x", ""],
)
def test_a_lost_job_is_submitted_again(slurm, tmp_path, row, caplog):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    states(slurm, *[row] * bool(row))
    assert engine.wait(0) == []
    states(slurm, "2|COMPLETED|0|None", row)
    (end,) = engine.wait(5)
    assert (end.job.name, end.code) == ("job", 0)
    assert len(calls(slurm, "sbatch")) == 2
    assert "job is submitted again: " in caplog.text


def test_a_job_that_is_lost_again_and_again_has_failed(slurm, tmp_path):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    states(slurm, *(f"{number}|NODE_FAIL|0|None" for number in range(1, 9)))
    (end,) = engine.wait(10)
    assert (end.code, end.reason) == (143, "its node failed")
    assert len(calls(slurm, "sbatch")) == slurm_engine.SUBMISSIONS


@pytest.mark.parametrize("name", ["PENDING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED"])
def test_a_job_that_is_in_the_queue_again_has_not_failed(slurm, tmp_path, name):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    states(slurm, f"1|{name}|15|BeginTime")
    assert engine.wait(0.1) == []
    assert len(calls(slurm, "sbatch")) == 1


def test_a_cluster_that_refuses_is_quoted_in_one_line(slurm, tmp_path, capfd):
    (slurm / "refusal").write_text(
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )
    engine = open_engine("slurm", {"partition": "nope"})
    engine.start(job(tmp_path))
    with pytest.raises(UserError) as error:
        engine.wait(0)
    assert str(error.value).startswith(
        "Slurm takes no jobs: invalid partition specified: nope Batch job submission failed: "
        "Invalid partition name specified. The engine's options, such as partition"
    )
    assert capfd.readouterr() == ("", ""), "the line is printed once, by the caller"


@pytest.mark.parametrize(("limit", "first"), [(2, 1), (5, 3), (12, 12)])
def test_an_array_above_a_limit_of_the_cluster_is_submitted_in_parts(
    slurm, tmp_path, monkeypatch, limit, first
):
    """Slurm refuses it as a whole, and has a limit on the jobs that are submitted."""
    monkeypatch.setattr(slurm_engine, "RETRY", 0.0)
    (slurm / "sbatch").write_text(
        f"""#!{sys.executable}
import re, sys
from pathlib import Path
here, text = Path({str(slurm)!r}), Path(sys.argv[-1]).read_text()
found = re.search("--array=0-([0-9]+)%", text)
size = int(found[1]) + 1 if found else 1
rows = (here / "states").read_text()
if rows.count("RUNNING") + size > {limit}:
    sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
(here / "arrays").open("a").write(f"{{size}} ")
n = len((here / "arrays").read_text().split())
names = [f"{{n}}_{{k}}" for k in range(size)] if found else [str(n)]
(here / "states").write_text(rows + "".join(f"{{name}}|RUNNING|0|None\\n" for name in names))
print("Submitted batch job", n)
"""
    )
    engine = open_engine("slurm", {})
    wanted = [f"job{number}" for number in range(12)]
    for name in wanted:
        engine.start(job(tmp_path, name))
    done = []
    for _ in range(200):
        done += [end.job.name for end in engine.wait(0)]
        path = slurm / "states"
        path.write_text(path.read_text().replace("RUNNING", "COMPLETED"))
        if len(done) == len(wanted):
            break
    assert sorted(done) == sorted(wanted)
    sizes = list(map(int, (slurm / "arrays").read_text().split()))
    assert (sum(sizes), sizes[0]) == (12, first)


def test_a_folder_that_cannot_be_made_is_named(slurm, tmp_path):
    (tmp_path / "file").touch()
    engine = open_engine("slurm", {"folder": str(tmp_path / "file")})
    engine.start(job(tmp_path))
    with pytest.raises(UserError, match=f"takes no jobs: .*Not a directory: '{tmp_path}/file"):
        engine.wait(0)


def test_a_forgotten_job_is_submitted_again_even_without_requeue(slurm, tmp_path):
    """It may have finished: then the second one ends at once."""
    engine = open_engine("slurm", {"requeue": False})
    engine.start(job(tmp_path))
    assert engine.wait(0) == []
    states(slurm, "2|COMPLETED|0|None")
    assert [end.code for end in engine.wait(5)] == [0]


def test_a_refusal_while_jobs_are_under_way_is_tried_again(slurm, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(slurm_engine, "RETRY", 0.05)
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path, "a"))
    states(slurm, "1|RUNNING|0|None")
    engine.wait(0)
    (slurm / "refusal").write_text("sbatch: error: QOSMaxSubmitJobPerUserLimit\n")
    engine.start(job(tmp_path, "b"))
    assert engine.wait(0.2) == []
    said = "Slurm takes no more jobs at present: QOSMaxSubmitJobPerUserLimit"
    assert caplog.messages == [said], "once"
    (slurm / "refusal").unlink()
    number = len(calls(slurm, "sbatch")) + 1
    states(slurm, "1|RUNNING|0|None", f"{number}|COMPLETED|0|None")
    assert [end.job.name for end in engine.wait(5)] == ["b"]


def test_a_controller_that_does_not_answer_is_waited_for(slurm, tmp_path, caplog):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    (slurm / "broken").write_text("slurm_load_jobs error: Unable to contact slurm controller\n")
    assert engine.wait(0.1) == []
    assert caplog.messages == [
        "Slurm does not answer: slurm_load_jobs error: Unable to contact slurm controller"
    ]
    (slurm / "broken").unlink()
    states(slurm, "1|COMPLETED|0|None")
    assert [end.code for end in engine.wait(5)] == [0]


def test_what_keeps_a_job_waiting_for_ever_is_said_once(slurm, tmp_path, caplog):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    states(slurm, "1|PENDING|0|PartitionTimeLimit")
    engine.wait(0.1)
    assert caplog.messages == [
        "Slurm's job 1 waits: PartitionTimeLimit. It may ask for more than the partition gives."
    ]
    states(slurm, "1|PENDING|0|Priority")
    engine.wait(0.1)
    assert len(caplog.messages) == 1


def test_stop_cancels_all_jobs(slurm, tmp_path):
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path, "a"))
    engine.start(job(tmp_path, "b"))
    states(slurm, "1_0|RUNNING|0|None", "1_1|PENDING|0|Priority")
    engine.wait(0)
    engine.start(job(tmp_path, "c"))
    engine.stop()
    assert calls(slurm, "scancel") == ["scancel 1_0 1_1"]
    assert [(end.job.name, end.code) for end in engine.wait(5)] == [("a", 143), ("b", 143)]
    assert engine.wait(5) == []
    assert len(calls(slurm, "sbatch")) == 1
    engine.close()


def test_variables_of_an_allocation_are_not_passed_on(slurm, tmp_path, monkeypatch):
    (slurm / "sbatch").write_text(f'#!/bin/sh\nenv > "{slurm}/env"\necho Submitted batch job 1\n')
    kept = {"SLURM_CONF": "x", "SBATCH_ACCOUNT": "lab"}
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8", **kept}.items():
        monkeypatch.setenv(name, value)
    engine = open_engine("slurm", {})
    engine.start(job(tmp_path))
    engine.wait(0)
    given = dict(line.partition("=")[::2] for line in (slurm / "env").read_text().splitlines())
    assert "SLURM_JOB_ID" not in given
    assert "SLURM_CPUS_PER_TASK" not in given
    assert {name: given[name] for name in kept} == kept
    assert os.environ["SLURM_JOB_ID"] == "17"


def test_submitit_has_a_folder_that_nobody_else_may_write(slurm, tmp_path):
    engine = open_engine("slurm", {"folder": str(tmp_path / "files")})
    engine.start(job(tmp_path))
    engine.wait(0)
    (folder,) = (tmp_path / "files").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "1_submitted.pkl").is_file()


@pytest.mark.parametrize("how", ["of others", "writable", "a link"])
def test_a_folder_that_somebody_else_may_write_is_refused(slurm, tmp_path, monkeypatch, how):
    """He could put a pickle there, which a job of ours would run."""
    folder = tmp_path / "files" / getpass.getuser()
    folder.mkdir(mode=0o700, parents=True)
    if how == "writable":
        folder.chmod(0o777)
    elif how == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        there = os.geteuid() + 1
        monkeypatch.setattr(slurm_engine.os, "geteuid", lambda: there)
    engine = open_engine("slurm", {"folder": str(tmp_path / "files")})
    engine.start(job(tmp_path))
    with pytest.raises(UserError, match=f"{folder} is of another user, or others may write there"):
        engine.wait(0)
    assert not (slurm / "calls").exists()


def test_a_container_stands_before_the_command(slurm, tmp_path):
    settings = {"container": "apptainer exec --nv 'my image.sif'", "python": "python3"}
    engine = open_engine("slurm", settings)
    command = [sys.executable, "-m", "dplq"]
    task = engine._task(job(tmp_path, "a", command, A="1"))
    image = ("apptainer", "exec", "--nv", "my image.sif")
    assert task.command == (*image, "python3", "-m", "dplq")
    assert task.environment == {"A": "1"}
    del settings["python"]
    assert open_engine("slurm", settings)._task(job(tmp_path, "a", command)).command == (
        *image,
        *command,
    )


def test_a_job_has_as_many_threads_as_cpus(slurm, tmp_path, monkeypatch):
    engine = open_engine("slurm", {"cpus": 4})
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    assert engine._task(job(tmp_path)).environment == dict.fromkeys(THREADS, "4")
    for name in THREADS:
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            assert engine._task(job(tmp_path)).environment == {}, "the user's own goes with it"


def test_without_slurm_one_line_says_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs Slurm, and its sbatch is not on PATH"):
        open_engine("slurm", {})


def test_without_submitit_one_line_has_its_install(monkeypatch):
    monkeypatch.setattr(slurm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        open_engine("slurm", {})
    assert str(error.value) == ("The engine slurm needs submitit: pip install submitit")


def test_an_unknown_option_is_named(slurm):
    with pytest.raises(UserError, match=r"has no option partitions.*Did you mean 'partition'"):
        open_engine("slurm", {"partitions": "gpu"})
    with pytest.raises(UserError, match="Options of the engine slurm: gpus: expected"):
        open_engine("slurm", {"gpus": "-1"})


@pytest.mark.parametrize("extra", ["signal=TERM@5", {"open_mode": "truncate"}])
def test_a_parameter_that_the_engine_sets_is_refused(slurm, extra):
    with pytest.raises(UserError, match=r"extra of the engine slurm: (signal|open-mode) is not to"):
        open_engine("slurm", {"extra": extra})


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        *((30, 30), ("30", 30), ("30:01", 31), ("4:00:00", 240), ("0:03:00", 3)),
        *(("1-00", 1440), ("1-02:30", 1590), ("2-00:00:01", 2881)),
    ],
)
def test_time_limits_have_the_forms_of_slurm(time, wanted):
    assert minutes(time) == wanted


@pytest.mark.parametrize("time", ["x", "", "1:2:3:4", "-5", "1-", "4h", "٣٠", 1.5])
def test_another_form_of_time_is_refused(time):
    with pytest.raises(UserError, match=r"is no time limit. Give minutes, HH:MM:SS or D-HH"):
        minutes(time)


def test_a_time_limit_that_leaves_no_time_is_refused(slurm):
    with pytest.raises(UserError, match="'2' is less than 3 minutes"):
        open_engine("slurm", {"time": "2"})


# What runs on a node.


def run_task(tmp_path, code, requeue=True, environment=None):
    """Run a command as submitit does, in a process of its own."""
    log = tmp_path / "log.txt"
    task = f"Task({(sys.executable, '-c', code)!r}, {environment or {}!r}, {str(log)!r}, {requeue})"
    program = f"from dplq.experiments.engines.slurm.task import Task; {task}()"
    return subprocess.Popen([sys.executable, "-c", program]), log


def wait_for(log, text):
    for _ in range(200):
        if log.exists() and text in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text() if log.exists() else "no log")


def test_a_task_appends_to_the_log_and_keeps_the_exit_code(tmp_path):
    (tmp_path / "log.txt").write_text("before\n")
    code = "import os, sys; print(os.environ['A'], flush=True); print('err', file=sys.stderr)"
    process, log = run_task(tmp_path, f"{code}; sys.exit(3)", environment={"A": "5"})
    assert process.wait() == 3
    assert log.read_text() == "before\n5\nerr\n"


def test_a_task_that_a_signal_ended_has_the_code_of_a_shell(tmp_path):
    process, _ = run_task(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert process.wait() == 137


def test_the_notice_of_the_time_limit_does_not_end_the_command(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive')"
    process, log = run_task(tmp_path, code)
    assert process.wait() == 0
    assert log.read_text() == "alive\n"


def test_without_requeue_the_notice_is_ignored(tmp_path):
    code = "import time; print('begun', flush=True); time.sleep(1); print('done')"
    process, log = run_task(tmp_path, code, requeue=False)
    wait_for(log, "begun")
    process.send_signal(signal.SIGUSR2)
    assert process.wait() == 0
    assert log.read_text() == "begun\ndone\n"


def test_the_command_ends_with_its_task(tmp_path):
    """Submitit leaves it by an exception when it has put the job into the queue."""
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('end')))"
        "\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    log = tmp_path / "log.txt"
    task = Task((sys.executable, "-c", code), {}, str(log), True)
    program = (
        "import signal, sys\nfrom dplq.experiments.engines.slurm.task import Task\n"
        f"signal.signal(signal.SIGUSR2, lambda *_: sys.exit(7))\n{task!r}()"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    wait_for(log, "begun")
    process.send_signal(signal.SIGUSR2)
    assert process.wait() == 7
    assert log.read_text() == "begun\nend\n"


@pytest.mark.parametrize(("state", "calls_of_scontrol"), [("RUNNING", 1), ("COMPLETING", 0)])
@pytest.mark.parametrize("array", [True, False])
def test_a_terminated_task_puts_its_job_back_if_slurm_does_not(
    slurm, tmp_path, monkeypatch, state, calls_of_scontrol, array
):
    (slurm / "scontrol").write_text(f'#!/bin/sh\necho scontrol "$@" >> "{slurm}/calls"\n')
    (slurm / "scontrol").chmod(0o755)
    states(slurm, state)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    process, _ = run_task(tmp_path, "raise SystemExit(143)")
    assert process.wait() == 143
    number = "17_3" if array else "18"
    assert calls(slurm, "squeue") == [f"squeue --noheader --jobs={number} --format=%T"]
    assert calls(slurm, "scontrol") == [f"scontrol requeue {number}"] * calls_of_scontrol


@pytest.mark.parametrize(("code", "requeue"), [(143, False), (2, True)])
def test_another_task_leaves_its_job_alone(slurm, tmp_path, monkeypatch, code, requeue):
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    process, _ = run_task(tmp_path, f"raise SystemExit({code})", requeue)
    assert process.wait() == code
    assert not (slurm / "calls").exists()


def test_a_task_is_run_again_as_it_is():
    submitit = pytest.importorskip("submitit")
    task = Task(("true",), {}, "", True)
    again = task.checkpoint()
    assert isinstance(again, submitit.core.utils.DelayedSubmission)
    assert again.function == task


def test_states_of_squeue(slurm):
    rows = ("17_0 |COMPLETED |0 |None ", "18|PENDING|0|Licenses", "odd line", "19|FAILED|?|None")
    states(slurm, *rows)
    assert queue.job_states(["17_0", "18", "19", "20"]) == {
        "17_0": JobState("COMPLETED"),
        "18": JobState("PENDING", waits_for="Licenses"),
        "19": JobState("FAILED"),
        "20": JobState("FORGOTTEN"),
    }
    (call,) = calls(slurm, "squeue")
    assert f"--user={os.geteuid()} " in call
