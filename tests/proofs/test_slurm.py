"""A Slurm cluster of two nodes on this machine: slurm.sbatch, a stop by signal, a preemption."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from proofrun import events

from .helpers import ROOT, last, on_host, read, shell, wait_for

RUN = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
SAME = "Inceptionv2-Digits_FP32_6E_2CPUs_Train"  # two ranks on one host: the same world
FLAGS = ["--max-steps", "40", "--log-interval", "3"]

CONF = """
ClusterName=proofrun
SlurmctldHost=localhost
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={work}/state
SlurmdSpoolDir={work}/spool.%n
SlurmctldPidFile={work}/slurmctld.pid
SlurmdPidFile={work}/slurmd.%n.pid
SlurmctldLogFile={work}/slurmctld.log
SlurmdLogFile={work}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,sched_min_interval=0
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[0-1] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[16818-16819] CPUs=1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


@pytest.fixture(scope="module")
def slurm(work, host):
    """The environment of a user of this cluster."""
    for name in ("munged", "slurmctld", "slurmd", "sbatch"):
        assert shutil.which(name), f"not run: there is no {name}; bash tests/prove.sh installs it"
    folder = work / "slurm"
    (folder / "state").mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = folder / "munge.socket"
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(work=folder, munge=munge))
    environment = {**host, "SLURM_CONF": str(conf)}
    daemons: list[subprocess.Popen] = []

    def start(*line: object) -> None:
        with (folder / f"{Path(str(line[0])).name}.out").open("ab") as log:
            daemons.append(
                subprocess.Popen(list(map(str, line)), env=environment, stdout=log, stderr=log)
            )

    try:
        start(
            "munged", "--foreground", "--force", "--key-file", key, "--socket", munge,
            "--pid-file", folder / "munge.pid", "--log-file", folder / "munge.log",
            "--seed-file", folder / "munge.seed",
        )  # fmt: skip
        wait_for(munge.exists, 30, daemons[0])
        start("slurmctld", "-D")
        for name in ("node0", "node1"):
            (folder / f"spool.{name}").mkdir()
            start("slurmd", "-D", "-N", name)
        wait_for(lambda: _idle(environment) == 2, 60)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)


def _idle(environment) -> int:
    line = ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%t"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    return done.stdout.split().count("idle")


class Job:
    """A job in the queue, and the transcript of what was done to it."""

    def __init__(self, environment, logs: Path, *options: str) -> None:
        self.environment, self.logs = environment, logs
        logs.mkdir()
        self.lines: list[str] = []
        self.output = logs / "slurm.out"
        said = self(
            "sbatch", "--nodes=2", f"--output={self.output}", *options,
            "run_scripts/slurm.sbatch", RUN, *FLAGS,
        )  # fmt: skip
        self.id = re.search(r"Submitted batch job (\d+)", said)[1]
        self.folder = logs / RUN / "001"

    def __call__(self, *line: str) -> str:
        said = shell(line, env={**self.environment, "PROOFRUN_LOGS": str(self.logs)}, cwd=ROOT)
        self.note(f"$ {' '.join(line)}", said)
        return said

    def note(self, *lines: str) -> None:
        clock = time.strftime("%H:%M:%S")
        self.lines += [f"{clock} {line}" for line in "\n".join(lines).strip().splitlines()]

    def state(self) -> str:
        line = ["scontrol", "--oneliner", "show", "job", self.id]
        done = subprocess.run(line, env=self.environment, capture_output=True, text=True)
        found = re.search(r"JobState=(\w+)", done.stdout)
        return found[1] if found else ""

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        """A job that has not ended must not keep the nodes from the next proof."""
        shell(["scancel", self.id], env=self.environment, expect=None)

    def until(self, *states: str, seconds: float = 300) -> None:
        found = wait_for(lambda: self.state() in states and self.state(), seconds)
        self.note(f"job {self.id}: {found}")

    def until_step(self, step: int) -> None:
        def trained() -> bool:
            if not (self.folder / "events.jsonl").exists():
                return False
            return any(e.step >= step for e in read(self.folder) if isinstance(e, events.Train))

        wait_for(trained, 400)
        self.note(f"trained to step {step}")

    def transcript(self) -> str:
        return "\n".join([*self.lines, "", f"--- {self.output.name}", self.output.read_text()])


@pytest.fixture(scope="module")
def undisturbed(host, work) -> str:
    """Hash of the final weights of two processes on this host."""
    return last(on_host(host, SAME, work / "one_host", *FLAGS)).weights_hash


def test_a_stopped_job_requeues_and_finishes(slurm, undisturbed, work, evidence):
    """The signal that Slurm sends before the time is up: all nodes save, 75, back to the queue."""
    with Job(slurm, work / "signal") as job:
        _stop_and_see(job, evidence)
    finish(job, undisturbed, evidence, "stopped by a signal and requeued")
    said = job.output.read_text()
    assert "slurm.sbatch: saved; back to the queue" in said
    assert "Traceback" not in said


def _stop_and_see(job: Job, evidence) -> None:
    job.until("RUNNING")
    job.until_step(12)
    began = time.monotonic()
    job("scancel", "--signal=TERM", job.id)
    job.until("PENDING", "REQUEUED", "COMPLETING")
    evidence.figure("from the signal to the queue", f"{time.monotonic() - began:.1f} s")
    saved = last(job.folder)
    assert saved.status == "interrupted" and saved.step >= 12
    job.until("RUNNING")
    job.until("COMPLETED", seconds=600)
    evidence.transcript("stopped_by_signal", job.transcript())


def test_a_preempted_job_goes_on(slurm, undisturbed, work, evidence):
    """A job of a partition with priority takes the nodes; Slurm requeues ours itself."""
    high = f"--output={work}/high.out"
    with Job(slurm, work / "preempted") as job:
        job.until("RUNNING")
        job.until_step(15)
        job("sbatch", "--partition=high", "--nodes=2", high, "--wrap=hostname")
        job.until("PENDING", "PREEMPTED", "REQUEUED", "COMPLETING")
        job.until("COMPLETED", seconds=600)
    evidence.transcript("preempted", job.transcript())
    finish(job, undisturbed, evidence, "preempted and requeued")
    assert (work / "high.out").read_text()


def finish(job: Job, undisturbed: str, evidence, how: str) -> None:
    end = last(job.folder)
    found = read(job.folder)
    starts = [e for e in found if isinstance(e, events.RunStart)]
    resumes = [e for e in found if isinstance(e, events.Resume)]
    assert end.status == "finished" and end.step == 40
    assert [(e.world_size, e.nodes) for e in starts] == [(2, 2), (2, 2)]
    assert [e.from_step > 0 for e in resumes] == [True]
    assert end.weights_hash == undisturbed
    evidence.figure(
        f"job on 2 nodes, {how}: went on from step",
        f"{resumes[0].from_step} of 40, final weights bit-equal to 2 processes on one host",
        "bit-equal",
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "which run?"),
        (["Nonsense"], 10, "there is no run_scripts/Nonsense.sh"),
    ],
)
def test_a_wrong_job_ends_at_once(slurm, work, words, code, said):
    output = work / f"wrong{code}.out"
    line = ["sbatch", "--wait", f"--output={output}", "run_scripts/slurm.sbatch", *words]
    shell(line, env=slurm, cwd=ROOT, expect=code)
    assert said in output.read_text()


def test_from_another_folder_it_says_where_to_call_it(slurm, work):
    output = work / "elsewhere.out"
    line = ["sbatch", "--wait", f"--output={output}", ROOT / "run_scripts/slurm.sbatch", RUN]
    shell(line, env=slurm, cwd=work, expect=2)
    assert "call sbatch from the checkout's folder" in output.read_text()


def test_without_pyxis_a_container_is_refused(slurm, work):
    output = work / "pyxis.out"
    line = ["sbatch", "--wait", f"--output={output}", "run_scripts/slurm.sbatch", RUN]
    shell(line, env={**slurm, "IMAGE": "proofrun:cpu"}, cwd=ROOT, expect=14)
    assert "this Slurm has no pyxis" in output.read_text()


def test_without_slurm_it_names_the_script():
    said = shell(["bash", ROOT / "run_scripts/slurm.sbatch", RUN], expect=2)
    assert f"without Slurm: bash run_scripts/{RUN}.sh" in said
    assert socket.gethostname() not in said
