"""What every command does with bad input and with its folder of results."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from egmjax.sharding import is_writer, state_mesh, wait_for_all
from egmjax.training import write_atomically

REPORT_SECONDS = 3600  # the other processes of a run wait this long for the one that writes the report


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the command with the sentence of a `ValueError` or `OSError` and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def use_compilation_cache(folder: Path | None = None) -> None:
    """Keeps compiled programs between processes: by default in `$XDG_CACHE_HOME/egmjax`, or the platform's such folder.

    There each kind of processor has a folder of its own, since a home may be shared by machines that are not alike.
    A cache that this process has been given, as by `JAX_COMPILATION_CACHE_DIR`, is left alone, and
    `JAX_ENABLE_COMPILATION_CACHE=0` turns either off. Where the folder cannot be written, jax warns and compiles. It is
    never cleared, and may be deleted at any time.
    """
    if folder is None:
        if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
            return
        folder = _user_cache() / "egmjax" / _processor()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # what takes less to compile than this is not worth a file
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """A name for what programs are compiled for."""
    info = Path("/proc/cpuinfo")
    features = (
        [line for line in info.read_text().splitlines() if line.startswith("flags")] if info.exists() else []
    )
    return "-".join(
        [platform.machine(), *(hashlib.sha256(line.encode()).hexdigest()[:8] for line in features[:1])]
    )


def _user_cache() -> Path:
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def is_taken(out: Path) -> bool:
    """Whether there is something at `out` that is not an empty folder."""
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def refuse_taken(out: Path) -> None:
    """Raises `ValueError` where `is_taken`."""
    if is_taken(out):
        raise ValueError(f"out: {out} exists and is not empty")


@dataclass(kw_only=True)
class FolderOptions:
    """Where a run is, and what to do with what is there."""

    out: Path
    """Folder for the results; must not exist, unless --resume or --overwrite is given."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint."""
    overwrite: bool = False
    """Delete what --out holds and start anew."""


@dataclass(kw_only=True)
class DeviceOptions:
    """What a run is spread over: all devices of all processes. Its result does not depend on them."""

    proposal_devices: int = 1
    """Devices that share the proposals of a state (snis and bootstrap only); states are split over the others."""
    coordinator: str | None = None
    """HOST:PORT of process 0, for a run of several processes, each started with this command; auto: as Slurm, Open MPI,
    Kubernetes or a TPU pod says. The folder must be one that all can write to."""
    num_processes: int | None = None
    """Number of processes (with --coordinator HOST:PORT)."""
    process_id: int | None = None
    """Number of this process, from 0 (with --coordinator HOST:PORT)."""


def join_processes(options: DeviceOptions) -> None:
    """Joins the other processes of the run, where there are any; before anything is computed.

    Raises `ValueError` for options that do not go together, or where the others cannot be reached.
    """
    address, places = options.coordinator, (options.num_processes, options.process_id)
    if address in (None, "auto"):
        if any(place is not None for place in places):
            raise ValueError("coordinator: HOST:PORT goes with --num-processes and --process-id")
    elif None in places:
        raise ValueError("coordinator: needs --num-processes and --process-id, or --coordinator auto")
    if address is None:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    patience: dict[str, Any] = {"shutdown_timeout_seconds": REPORT_SECONDS}
    if not patience.keys() <= inspect.signature(jax.distributed.initialize).parameters.keys():
        patience = {}  # five minutes, before jax had a choice
    try:
        jax.distributed.initialize(None if address == "auto" else address, *places, **patience)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"coordinator: {str(error).strip().splitlines()[0]}") from None


def device_mesh(proposals: int = 1) -> Mesh | None:
    """All devices of all processes; `None`, the program without shardings, where there is one."""
    return None if jax.device_count() == proposals == 1 else state_mesh(proposals=proposals)


def result_options(options: FolderOptions) -> dict[str, Any]:
    """The options that determine the result: all but where it goes and what it is computed on."""
    where = {field.name for kind in (FolderOptions, DeviceOptions) for field in fields(kind)}
    return {name: value for name, value in asdict(options).items() if name not in where}


def prepare_folder(
    options: FolderOptions,
    configuration: Mapping[str, Any],
    *,
    read: Callable[[Path], Mapping[str, Any]],
    is_run: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Makes the folder of a run and writes `config.json`; refuses to lose or mix up anything.

    `read(folder)` is the configuration of the run in it, `is_run(values)` whether a `config.json` is that of a run,
    which may be deleted. Raises `ValueError` where there is something else, or a run and neither flag, or both. Of
    several processes each looks, and the first then writes.
    """
    folder, wanted = options.out, json.loads(json.dumps(dict(configuration)))
    if options.resume and options.overwrite:
        raise ValueError("resume: cannot be combined with --overwrite")
    if is_taken(folder):
        if options.resume:
            there = read(folder)
            changed = [k for k in {**there, **wanted} if there.get(k) != wanted.get(k)]
            if changed:
                raise ValueError(
                    f"resume: {folder} holds a run of another configuration (differs in {', '.join(changed)})"
                )
        elif not options.overwrite:
            raise ValueError(f"out: {folder} exists; give --resume to go on or --overwrite to start anew")
        elif not _holds(folder, is_run):
            raise ValueError(f"overwrite: {folder} is not the folder of a run, so it is left alone")
    wait_for_all("folder looked at")
    try:
        if is_writer():
            if options.overwrite and is_taken(folder):
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "config.json").exists():
                write_atomically(folder / "config.json", json.dumps(wanted, indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"out: cannot write to {folder} ({error.strerror})") from error
    wait_for_all("folder made")


def read_json(folder: Path) -> dict[str, Any]:
    """What the `config.json` of `folder` says. Raises `ValueError` where there is none."""
    try:
        values = json.loads((folder / "config.json").read_text())
    except OSError as error:
        raise ValueError(f"run: {folder} has no config.json") from error
    except ValueError as error:
        raise ValueError(f"run: {folder}/config.json is damaged") from error
    if not isinstance(values, dict):
        raise ValueError(f"run: {folder}/config.json is not a configuration")
    return values


def _holds(folder: Path, is_run: Callable[[Mapping[str, Any]], bool]) -> bool:
    try:
        return is_run(read_json(folder))
    except ValueError:
        return False
