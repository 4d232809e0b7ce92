"""Try what needs a network or a GPU: `python examples/online.py DIR`, or `make online`.

Reads a model, a task and a corpus from the Hub, pushes to a throwaway private repository and
deletes it again, is refused by a gate, and distils and fine-tunes a tiny model on each device that
is there. Each step types the project's commands as a user would; what Python asks of the Hub itself
is whether it answers, whose the token is, and to delete. The token is the one of `hf auth login` or
HF_TOKEN; it is neither printed nor written.

Every line ends "passed", "failed" with the reason and the log, or "not tried" with the reason. A
line that fails doesn't stop the others; the status is 1 then. Downloads, models and results lie in
a temporary folder that is removed at the end; DIR keeps the logs.
"""

import functools
import hashlib
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from angels_share.cli import BAD_INPUT, DONE, RUN_FAILED, TERMINATED, Command, run_command
from angels_share.errors import RunFailed, UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options
from angels_share.hardware import visible_gpus
from angels_share.hub.asking import HubError, NoNetworkError, ask, endpoint
from angels_share.model_files import CARD, WEIGHTS, is_of_model
from angels_share.names import short_name_of
from angels_share.student_record import RECORD

if TYPE_CHECKING:
    from eval_harness.results.record import TaskResult

ROOT = Path(__file__).resolve().parent.parent
MODEL, TASK, CORPUS = "distilbert", "rte", "Salesforce/wikitext:wikitext-2-raw-v1"
"""What is read from the Hub: 270 MB, 1 MB and 5 MB."""
GATED = "meta-llama/Llama-3.2-1B"
PREFIX = "angels-share-online"
_MINUTES = 30
"""How long a command may take: most of it is a download on a slow line."""
_SECONDS_TO_END = 20
_SECONDS_FOR_THE_HUB = 10.0

SAME, ROUGHLY, POINTS = 0.01, 0.05, 10.0
"""How far a device's held-out loss may be from the CPU's, as a share of it: where only rounding
differs; and in bf16, or in two processes, whose steps are made of other neighbours in length. How
far its score after fine-tuning may be, in points."""

# fmt: off
PRETRAINING = (
    "--max_steps", "60", "--tokens_per_batch", "768", "--learning_rate", "3e-3",
    "--min_tokens", "6", "--validation_fraction", "0.01", "--seed", "11", "--report_to", "none",
)
FINE_TUNING = (
    "--tasks", "imdb", "--limit", "300", "--seeds", "11", "--num_train_epochs", "5",
    "--per_device_train_batch_size", "16", "--learning_rate", "1e-3", "--workers", "1",
)
# fmt: on
ONE_PROCESS = ("--gradient_accumulation_steps", "2")
"""With one process: as many tokens an update as two processes have."""


class NotTriedError(Exception):
    """A line can't be tried here; the message says why."""


class FailedError(Exception):
    """What a line tried went wrong; the message says what."""


class Ended(NamedTuple):
    """How a command ended: its status and what it wrote."""

    status: int
    output: str

    @property
    def lines(self) -> list[str]:
        """The lines that a terminal would show in the end: of a progress bar, its last state."""
        shown = (line.rstrip("\r").rpartition("\r")[2] for line in self.output.split("\n"))
        return [line for line in shown if line.strip()]


class Trial:
    """What the lines share: a temporary folder, the log of the line, and what was made before.

    Attributes:
        work: the temporary folder.
        log: the file to which commands write now.
        gated: a gated model that a stranger may not read.
        repo: the throwaway repository, from before it is made until it was deleted.
        is_pushed: whether the student lies in it.
    """

    def __init__(self, work: Path, gated: str) -> None:
        self.work, self.gated = work, gated
        self.log = work / "log.txt"
        self.repo: str | None = None
        self.is_pushed = False

    def run(self, *words: str, **changed: str) -> str:
        """Run a command of the project, and return what it wrote.

        Raises:
            FailedError: it ended with another status than 0.
        """
        ended = self.end_of(*words, **changed)
        if ended.status != DONE:
            raise FailedError((ended.lines or [f"status {ended.status}, and not a word"])[-1])
        return ended.output

    def end_of(self, *words: str, **changed: str) -> Ended:
        """Run a command of the project to its end, in a cache of its own; write all to the log."""
        with self.log.open("ab") as log:
            log.write(f"$ python {shlex.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(  # noqa: S603  (our own commands, and no shell)
                [sys.executable, *words],
                cwd=ROOT,
                env=self._environment() | changed,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C comes to us, and we end it
            )
            try:
                status = process.wait(60 * _MINUTES)
            except subprocess.TimeoutExpired:
                raise FailedError(f"{words[0]} took more than {_MINUTES} minutes") from None
            finally:
                _end(process)
        return Ended(status, self.log.read_bytes()[start:].decode(errors="replace"))

    def _environment(self) -> dict[str, str]:
        """Return the environment: caches that are empty at first; the token stays where it is."""
        caches = {"HF_HUB_CACHE": "hub", "HF_XET_CACHE": "xet", "HF_DATASETS_CACHE": "datasets"}
        caches["TORCHINDUCTOR_CACHE_DIR"] = "inductor"
        return {**os.environ, **{name: str(self.work / each) for name, each in caches.items()}}

    def place(self, name: str) -> str:
        """Return a path in the temporary folder."""
        return str(self.work / name)

    def require(self, *names: str) -> None:
        """Leave a line untried where what an earlier one should have made isn't there.

        Raises:
            NotTriedError: names what is missing.
        """
        for name in names:
            if not (self.work / name).exists():
                raise NotTriedError(f"{name} is missing: the line that makes it didn't pass")

    @functools.cached_property
    def silence(self) -> str | None:
        """Why the Hub can't be used; None if it answers."""
        from huggingface_hub import HfApi

        about = short_name_of(MODEL)
        assert about is not None
        try:
            ask(
                lambda: HfApi().model_info(
                    about.repo_id, timeout=_SECONDS_FOR_THE_HUB, token=False
                ),
                f"model {about.repo_id}",
                seconds=_SECONDS_FOR_THE_HUB,
                tries=1,
            )
        except NoNetworkError as error:
            return f"the Hub can't be used: {error}"
        except HubError:
            return None  # it answers; what it has against us is for the lines to find out
        return None

    def require_hub(self) -> None:
        """Leave a line untried where the Hub can't be reached.

        Raises:
            NotTriedError: says why.
        """
        if self.silence is not None:
            raise NotTriedError(self.silence)

    @functools.cached_property
    def gpus(self) -> list[str]:
        """The GPUs that torch can use, as CUDA_VISIBLE_DEVICES names them."""
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        import torch

        return visible_gpus() if torch.cuda.is_available() else []

    def loss(self, student: str) -> float:
        """Return a student's loss on held-out text, from its record."""
        record = json.loads((self.work / student / RECORD).read_text(encoding="utf-8"))
        return float(record["validation"]["eval_loss"])

    def device(self, student: str) -> str:
        """Return the device that a student was trained on, from its record."""
        record = json.loads((self.work / student / RECORD).read_text(encoding="utf-8"))
        return str(record["device"])

    def result(self, results: str) -> "TaskResult":
        """Return the one run in a folder of results."""
        from eval_harness.results.store import find

        (result,) = find(self.work / results).by_key.values()
        return result

    def score(self, results: str) -> float:
        """Return the score of the one run in a folder of results, in percent.

        Raises:
            FailedError: it has none.
        """
        if (score := self.result(results).score) is None:
            raise FailedError("the run has no score")
        return 100 * float(score)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a command and what it started, if it hasn't ended; it may need a moment to save."""
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- the Hub


def fetch(trial: Trial) -> str:
    """Fetch what the README's first commands need."""
    trial.require_hub()
    words = ("--model", MODEL, "--tasks", TASK, "--corpus", CORPUS)
    trial.run("-m", "eval_harness", "fetch", *words)
    (trial.work / "fetched").touch()
    return f"{MODEL}, {TASK}, {CORPUS}"


def use_offline(trial: Trial) -> str:
    """Fine-tune what was fetched, without asking the Hub."""
    _require_fetched(trial)
    words = ("--model", MODEL, "--tasks", TASK, "--limit", "32", "--num_seeds", "1")
    short = ("--num_train_epochs", "1", "--max_seq_length", "32", "--use_cpu")
    place = ("--results_dir", trial.place("results-of-the-hub"))
    trial.run("run_glue.py", *words, *short, *place, HF_HUB_OFFLINE="1")
    return f"{MODEL} on 32 examples of {TASK}: {trial.score('results-of-the-hub'):.1f}"


def distil_from_hub(trial: Trial) -> str:
    """Distil the Hub's model on the Hub's corpus for two steps."""
    _require_fetched(trial)
    words = ("--teacher", MODEL, "--corpus", CORPUS, "--output_dir", trial.place("hub-student"))
    short = ("--max_steps", "2", "--tokens_per_batch", "1024", "--max_seq_length", "64")
    more = ("--validation_fraction", "0.005", "--report_to", "none", "--use_cpu")
    trial.run("run_pretrain_distill.py", *words, *short, *more)
    return f"held-out loss {trial.loss('hub-student'):.2f}"


def _require_fetched(trial: Trial) -> None:
    trial.require_hub()
    if not (trial.work / "fetched").exists():
        raise NotTriedError("not everything was fetched")


def meet_gate(trial: Trial) -> str:
    """Be refused a gated model, as somebody without a token, in one line and before any work."""
    trial.require_hub()
    stranger = {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "", "HF_TOKEN_PATH": trial.place("none")}
    words = ("run_glue.py", "--model", trial.gated, "--tasks", "rte", "--dry_run")
    ended = trial.end_of(*words, **stranger)
    if ended.status != BAD_INPUT or len(ended.lines) != 1 or "is gated" not in ended.lines[0]:
        last = (ended.lines or ["not a word"])[-1]
        raise FailedError(f"status {ended.status}, {len(ended.lines)} lines, the last: {last}")
    return ended.lines[0]


def push(trial: Trial) -> str:
    """Push a student to a private repository that is made for it, and look at what went up."""
    trial.require_hub()
    owner = _owner_who_may_write()
    trial.require("student-cpu")
    name = f"{owner}/{PREFIX}-{secrets.token_hex(4)}"
    say(f"throwaway repository, deleted at the end: {endpoint()}/{name}")
    trial.repo = name
    student = trial.place("student-cpu")
    trial.run("-m", "eval_harness", "push", student, "--repo_id", name)
    trial.is_pushed = True
    info = _asked(lambda api: api.model_info(name), name)
    if not info.private:
        raise FailedError(f"{name} is public")
    files = [each.rfilename for each in info.siblings or ()]
    extra = [
        each for each in files if each not in (CARD, ".gitattributes") and not is_of_model(each)
    ]
    if extra:
        raise FailedError(f"went up, and should not have: {', '.join(extra)}")
    trial.run("-m", "eval_harness", "push", student, "--repo_id", name)
    if _asked(lambda api: api.model_info(name), name).sha != info.sha:
        raise FailedError("the same content made a second commit")
    return f"{len(files)} files, private; again: no new commit"


def read_back(trial: Trial) -> str:
    """Read the pushed model from the Hub, and compare its weights with those that went up."""
    if trial.repo is None or not trial.is_pushed:
        raise NotTriedError("nothing was pushed")
    trial.run("-m", "eval_harness", "fetch", "--model", trial.repo)
    cached = (trial.work / "hub" / f"models--{trial.repo.replace('/', '--')}").glob("snapshots/*")
    found = [each / WEIGHTS for each in cached]
    (sent,) = {_digest(trial.work / "student-cpu" / WEIGHTS)}
    if [_digest(each) for each in found] != [sent]:
        raise FailedError("the weights that came back are not those that went up")
    return "the same weights"


def delete(trial: Trial) -> str:
    """Delete the throwaway repository, and look whether it is gone."""
    if trial.repo is None:
        raise NotTriedError("nothing was pushed")
    name = trial.repo
    _asked(lambda api: api.delete_repo(name, missing_ok=True), name)
    if _asked(lambda api: api.repo_exists(name), name):
        raise FailedError(f"{name} is still there: delete it on {endpoint()}/{name}/settings")
    trial.repo = None
    return name


def _owner_who_may_write() -> str:
    """Return the token's user.

    Raises:
        NotTriedError: there is no token, or it may only read.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise NotTriedError("no token: `hf auth login` with one that may write, or set HF_TOKEN")
    user = _asked(lambda api: api.whoami(), "your token")
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise NotTriedError("your token may only read: log in with one that may write")
    return str(user["name"])


def _asked(work: Callable[[Any], Any], about: str) -> Any:
    """Ask the Hub by its own client."""
    from huggingface_hub import HfApi

    try:
        return ask(lambda: work(HfApi()), about, seconds=3 * _SECONDS_FOR_THE_HUB)
    except HubError as error:
        raise FailedError(str(error)) from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- devices


def make_world(trial: Trial) -> str:
    """Write a made-up language with its tasks, and train a small teacher on it, on the CPU."""
    trial.run("-m", "eval_harness", "demo", trial.place("world"))
    config = ("--student", trial.place("world/teacher/config.json"), "--student_init", "random")
    _distil(trial, "teacher", "--teacher", "none", *config, *ONE_PROCESS, "--use_cpu")
    return f"held-out loss {trial.loss('teacher'):.2f}"


def distil_on_cpu(trial: Trial) -> str:
    """Distil the teacher on the CPU; its numbers are what the devices' are compared with."""
    trial.require("teacher")
    _student(trial, "student-cpu", *ONE_PROCESS, "--use_cpu")
    return f"held-out loss {trial.loss('student-cpu'):.4f}"


def tune_on_cpu(trial: Trial) -> str:
    """Fine-tune the student on the CPU."""
    trial.require("student-cpu")
    _tune(trial, "results-cpu", "--use_cpu")
    return f"accuracy {trial.score('results-cpu'):.1f}"


def distil_on_gpu(trial: Trial) -> str:
    """Distil on one GPU in float32."""
    gpu = _one_gpu(trial)
    _student(trial, "student-gpu", *ONE_PROCESS, CUDA_VISIBLE_DEVICES=gpu)
    return _compared(trial, "student-gpu", SAME, away_from_cpu=True)


def distil_in_bf16(trial: Trial) -> str:
    """Distil on one GPU in bf16."""
    gpu = _one_gpu(trial)
    _student(trial, "student-bf16", *ONE_PROCESS, "--bf16", CUDA_VISIBLE_DEVICES=gpu)
    return _compared(trial, "student-bf16", ROUGHLY, away_from_cpu=True)


def tune_on_gpu(trial: Trial) -> str:
    """Fine-tune on one GPU the student that the CPU made."""
    gpu = _one_gpu(trial)
    trial.require("results-cpu")
    _tune(trial, "results-gpu", CUDA_VISIBLE_DEVICES=gpu)
    score, cpu = trial.score("results-gpu"), trial.score("results-cpu")
    device = trial.result("results-gpu").provenance["device"]
    said = f"accuracy {score:.1f}, on the CPU {cpu:.1f}; {device}"
    if device == "cpu" or abs(score - cpu) > POINTS:
        raise FailedError(said)
    return said


def distil_in_two(trial: Trial) -> str:
    """Distil in two processes by torchrun: on two GPUs, or on the CPU where there are fewer."""
    trial.require("teacher")
    devices = trial.gpus[:2]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    words = ["--teacher", trial.place("teacher"), "--gradient_accumulation_steps", "1"]
    changed = {"TMPDIR": trial.place("tmp")}  # torchrun leaves an empty folder there
    Path(changed["TMPDIR"]).mkdir()
    if len(devices) == 2:
        changed["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    else:
        words.append("--use_cpu")
    _distil(trial, "student-two", *words, before=torchrun, changed=changed)
    where = "two GPUs" if len(devices) == 2 else "two CPU processes"
    return f"{where}: {_compared(trial, 'student-two', ROUGHLY, away_from_cpu=len(devices) == 2)}"


def distil_on_mps(trial: Trial) -> str:
    """Distil on Apple's GPU."""
    import torch

    if not torch.backends.mps.is_available():
        raise NotTriedError("torch sees no MPS here")
    trial.require("teacher")
    _student(trial, "student-mps", *ONE_PROCESS)
    return _compared(trial, "student-mps", SAME, away_from_cpu=True)


def _one_gpu(trial: Trial) -> str:
    if not trial.gpus:
        raise NotTriedError("torch sees no GPU here")
    trial.require("teacher")
    return trial.gpus[0]


def _student(trial: Trial, name: str, *words: str, **changed: str) -> None:
    _distil(trial, name, "--teacher", trial.place("teacher"), *words, changed=changed)


def _distil(
    trial: Trial,
    name: str,
    *words: str,
    before: Sequence[str] = (),
    changed: Mapping[str, str] | None = None,
) -> None:
    """Pre-train a model of the made-up language into a folder of this name."""
    corpus = ("--corpus", trial.place("world/corpus.txt"), "--corpus_dir", trial.place("corpus"))
    place = ("--output_dir", trial.place(name))
    trial.run(
        *before, "run_pretrain_distill.py", *words, *corpus, *PRETRAINING, *place, **(changed or {})
    )


def _tune(trial: Trial, results: str, *words: str, **changed: str) -> None:
    model = ("--model", trial.place("student-cpu"), "--data_dir", trial.place("world/glue"))
    place = ("--results_dir", trial.place(results))
    trial.run("run_glue.py", *model, *FINE_TUNING, *words, *place, **changed)


def _compared(trial: Trial, student: str, bound: float, *, away_from_cpu: bool) -> str:
    """Compare a student's held-out loss with the CPU's.

    Raises:
        FailedError: it was trained elsewhere than asked, or is further away than the bound.
    """
    device, loss = trial.device(student), trial.loss(student)
    if away_from_cpu == device.startswith("cpu"):
        raise FailedError(f"it was trained on {device}")
    trial.require("student-cpu")
    cpu = trial.loss("student-cpu")
    said = f"held-out loss {loss:.4f}, on the CPU {cpu:.4f}"
    if not abs(loss - cpu) <= bound * cpu:  # a NaN is no small difference either
        raise FailedError(said)
    return f"{said}; {device}"


# --- all lines


LINES: Mapping[str, Callable[[Trial], str]] = {
    "read a model, a task and a corpus from the Hub": fetch,
    "use what was fetched without asking the Hub": use_offline,
    "distil the Hub's model on the Hub's corpus": distil_from_hub,
    "be refused a gated model in one line": meet_gate,
    "a made-up language, and a teacher of it": make_world,
    "distil on the CPU": distil_on_cpu,
    "fine-tune on the CPU": tune_on_cpu,
    "push to a throwaway private repository": push,
    "read it back": read_back,
    "delete it": delete,
    "distil on one GPU": distil_on_gpu,
    "distil on one GPU in bf16": distil_in_bf16,
    "fine-tune on one GPU": tune_on_gpu,
    "distil in two processes by torchrun": distil_in_two,
    "distil on MPS": distil_on_mps,
}


def run(options: Options) -> int:
    """Try all lines, clean up, and return 1 if one failed."""
    logs = require_writable_folder(options.folder, "DIR")
    logs.mkdir(parents=True, exist_ok=True)
    ended: list[str] = []
    with (
        _hang_up_ends(),
        tempfile.TemporaryDirectory(prefix=f"{PREFIX}-") as work,
        _without_leftovers(Trial(Path(work), options.gated)) as trial,
    ):
        for number, (name, line) in enumerate(LINES.items(), 1):
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            trial.log = logs / f"{number:02}-{slug}.txt"
            trial.log.unlink(missing_ok=True)
            ended.append(_try(name, line, trial))
    counts = ", ".join(f"{ended.count(how)} {how}" for how in ("passed", "failed", "not tried"))
    say(f"{counts}; logs: {logs}")
    return RUN_FAILED if "failed" in ended else DONE


def _try(name: str, line: Callable[[Trial], str], trial: Trial) -> str:
    """Try a line, print how it ended, and return that."""
    started, how = time.monotonic(), "passed"
    try:
        said = line(trial)
        said = f"{said}; {time.monotonic() - started:.0f} s"
    except NotTriedError as reason:
        how, said = "not tried", str(reason)
    except (FailedError, UserError, RunFailed) as reason:
        how, said = "failed", str(reason)
    except Exception as error:  # noqa: BLE001  (reported in its line; the others go on)
        how, said = "failed", f"{type(error).__name__}: {error}"
    if _hide_token(trial.log):
        how, said = "failed", "the token stood in the output of a command"
    said = " ".join(_without_token(said).split())[:400]
    if how == "failed":
        with trial.log.open("a", encoding="utf-8") as log:
            log.write(f"{how}: {said}\n")
        said = f"{said} (log: {trial.log})"
    say(f"{name}: {how}{f' ({said})' if how == 'passed' else f': {said}'}")
    return how


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def _without_token(text: str) -> str:
    """Return a text without the token, should some message quote it."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "***") if token else text


def _hide_token(log: Path) -> bool:
    """Take the token out of a log; return whether it was there, which is a fault."""
    if not log.exists():
        return False
    text = log.read_text(encoding="utf-8", errors="replace")
    hidden = _without_token(text)
    if hidden != text:
        log.write_text(hidden, encoding="utf-8")
    return hidden != text


@contextmanager
def _without_leftovers(trial: Trial) -> Iterator[Trial]:
    """Delete the throwaway repository at the end, however that comes; or say that it is there."""
    try:
        yield trial
    finally:
        if trial.repo is not None:
            with _undisturbed():
                _delete_or_say(trial)


def _delete_or_say(trial: Trial) -> None:
    name = trial.repo
    try:
        delete(trial)
    except FailedError as reason:
        page = f"{endpoint()}/{name}/settings"
        say(f"{name} could not be deleted: {reason}; if it is there, delete it on {page}")
    else:
        say(f"{name} is deleted")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Pass over signals for as long as a deletion takes, which is limited."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _hang_up_ends() -> Iterator[None]:
    """Let a terminal that closes end the script in order, as SIGTERM does; `nohup` still holds."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGHUP, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


COMMAND = Command(
    name="online",
    summary="tries what needs a network or a GPU, and says of each: passed, failed, not tried",
    flags=(
        Flag("folder", "folder of the logs", required=True, metavar="DIR", first=True),
        Flag("gated", "gated model on the Hub that a stranger may not read", default=GATED),
    ),
    run=run,
    examples=("python examples/online.py online",),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
