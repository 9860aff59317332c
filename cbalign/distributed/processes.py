"""The processes of one run: joining, stopping at the same step, and detecting a lost process.

A single-process run never uses `jax.distributed`. With several, each process sends a heartbeat every few seconds
through the key-value store of JAX's coordination service. If one is killed, stopped or fails, the others exit with a
line that names it, instead of hanging in a collective.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

import jax

from cbalign.distributed import devices
from cbalign.distributed.cluster import how_to_join
from cbalign.errors import UserError

TRY_AGAIN = 75
"""Exit code (EX_TEMPFAIL) of a run that was asked to stop or lost a process; when restarted, it resumes."""

_BEAT = 5.0  # seconds between heartbeats
_SILENCE = "CBALIGN_SILENCE_SECONDS"  # environment variable: heartbeat timeout, 60 by default

# Words in the backends' error messages for a lost peer.
_COLLECTIVES = ("gloo", "nccl")
_LOST = (*_COLLECTIVES, "connection", "socket closed", "unavailable", "deadline")


@contextlib.contextmanager
def joined(
    *,
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
    agree_to_stop: bool = False,
):
    """Joins the other processes for the duration of the block, if flags or environment say that there are any.

    Must be entered before JAX is used. An error in the block is printed and published to the other processes; this
    process then exits without waiting for them.

    Args:
      coordinator: "HOST:PORT" of process 0, or "".
      num_processes: number of processes, or None.
      process_id: index of this process, or None.
      agree_to_stop: share SIGTERM among all processes, to be polled with `StopSignals.agreed`.

    Raises:
      UserError: flags or environment are incomplete or inconsistent.
    """
    arguments = how_to_join(os.environ, coordinator=coordinator, num_processes=num_processes, process_id=process_id)
    if arguments is None:
        yield
        return
    # CPU devices of different processes communicate through Gloo.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", agree_to_stop)
    jax.distributed.initialize(**arguments)
    watch = _Watch(silence=float(os.environ.get(_SILENCE, "60")))
    with _on_abort(watch.lost_service):
        try:
            watch.start()
            devices.meet()
            yield
            # No process may exit while another still works: process 0 would take the coordination service with it.
            devices.barrier("end")
        except BaseException as error:  # noqa: BLE001 - the other processes are told of whatever ends this one
            watch.fail(error)
        watch.stop()
        jax.distributed.shutdown()


def _lost_peer(error: BaseException, reason: str) -> bool:
    """Whether an error of a collective says that a peer has gone; JAX raises some of them as ValueError."""
    words = _LOST if isinstance(error, jax.errors.JaxRuntimeError) else _COLLECTIVES
    kinds = (jax.errors.JaxRuntimeError, ValueError)
    return isinstance(error, kinds) and any(word in reason.lower() for word in words)


class StopSignals:
    """Records SIGTERM and SIGINT, so that the loop can save and stop between steps.

    Attributes:
      caught: the name of the signal, or "".
    """

    def __init__(self):
        self.caught = ""
        self._before = {}

    def __enter__(self):
        # With several processes JAX handles SIGTERM and notifies the others.
        numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: the caller keeps its own handling
                break
        return self

    def _handle(self, number, frame):
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number).name
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)

    def agreed(self, step: int) -> bool:
        """Whether the run must stop after this step; the answer is the same in all processes.

        Must be called after every step. A signal to one process stops all of them at the next step that none has
        reached yet.
        """
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            if not multihost_utils.reached_preemption_sync_point(step):
                return False
            self.caught = self.caught or "SIGTERM"
        return bool(self.caught)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def exit_code(signal_name: str) -> int:
    """Exit code of a run that saved and stopped on a signal: 75 (restart) for SIGTERM, 130 for Ctrl-C."""
    return TRY_AGAIN if signal_name == "SIGTERM" else 128 + signal.Signals[signal_name]


@contextlib.contextmanager
def _on_abort(function):
    """Calls a function when C++ code calls abort(), which then goes on if the function returns.

    So JAX ends a process whose coordination service has gone. The thread that aborts runs no Python code: a handler of
    the module `signal` would never be called.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: function())
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = set_handler(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        set_handler(signal.SIGABRT, before)


class _Watch(threading.Thread):
    """Sends this process's heartbeat, and exits the process when another one fails.

    Keys: "cbalign/alive/INDEX" = "HOST COUNT"; "cbalign/failed/INDEX" = JSON {"code", "message"}. Process 0, which
    hosts the service, decides which processes are lost; the others decide that of process 0. Time during which this
    process was itself stopped does not count.
    """

    def __init__(self, *, silence: float):
        super().__init__(name="watch", daemon=True)
        self.index, self.count, self.silence = jax.process_index(), jax.process_count(), silence
        self.beat = min(_BEAT, silence / 4)
        state: Any = jax._src.distributed.global_state  # neither the store nor its address has a public API
        self._client, self._address = state.client, state.coordinator_address
        self._stopped = threading.Event()
        self._heard = {}  # index -> (value of its key, how long it has not changed)
        self._rounds = 0  # in which the service answered

    def run(self) -> None:
        if self.index > 0:
            threading.Thread(target=self._mind_service, name="service", daemon=True).start()
        beats, last = 0, time.monotonic()
        while not self._stopped.is_set():
            beats += 1
            now, before = time.monotonic(), last
            last = now
            try:
                value = f"{socket.gethostname()} {beats}"
                self._client.key_value_set(f"cbalign/alive/{self.index}", value, allow_overwrite=True)
                if self.index == 0:
                    self._judge(min(now - before, 2 * self.beat))
                failures = self._failures()
                self._rounds += 1
            except jax.errors.JaxRuntimeError:
                failures = {}  # `_mind_service` counts how long the service has been unreachable
            for index, failure in failures.items():
                if index != self.index and not self._stopped.is_set():
                    self._say(failure["message"])
                    self._leave(failure["code"])
            self._stopped.wait(self.beat)

    def _judge(self, passed: float) -> None:
        for key, value in self._client.key_value_dir_get("cbalign/alive/"):
            index = int(key.rsplit("/", 1)[1])
            old, silent = self._heard.get(index, ("", 0.0))
            silent = silent + passed if old == value else 0.0
            self._heard[index] = value, silent
            if silent > self.silence:
                self._publish(index, TRY_AGAIN, self._lost(index, f"on {value.rsplit(' ', 1)[0]}"))

    def _mind_service(self) -> None:
        """Exits the process if process 0 is silent; a thread of its own, since a call to the service may wait long."""
        silent, rounds = 0.0, 0
        while not self._stopped.wait(self.beat):
            silent, rounds = (0.0 if self._rounds != rounds else silent + self.beat), self._rounds
            if silent > self.silence and not self._stopped.is_set():
                self._say(self._lost(0, f"at {self._address}"))
                self._leave(TRY_AGAIN)

    def lost_service(self) -> None:
        """Exits the process if nothing listens at the address of process 0 any more."""
        if self.index == 0:
            return
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=self.beat).close()
        except OSError:
            self._say(
                f"process 0 of {self.count} at {self._address} was killed, or its host is down. Start the run again "
                "to resume from its newest checkpoint"
            )
            self._leave(TRY_AGAIN)

    def _lost(self, index: int, place: str) -> str:
        return (
            f"process {index} of {self.count} {place} has not responded for {self.silence:.0f} s: it was killed or "
            "stopped, or its host is down. Start the run again to resume from its newest checkpoint"
        )

    def _failures(self) -> dict:
        entries = self._client.key_value_dir_get("cbalign/failed/")
        return {int(key.rsplit("/", 1)[1]): json.loads(value) for key, value in entries}

    def _publish(self, index: int, code: int, message: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            value = json.dumps({"code": code, "message": message})
            self._client.key_value_set(f"cbalign/failed/{index}", value, allow_overwrite=True)

    def fail(self, error: BaseException):
        """Prints the error, publishes it to the other processes and exits this one."""
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        if _lost_peer(error, reason):
            self._say(
                f"process {self.index} of {self.count} lost the connection to another process ({reason}); "
                "waiting to learn which"
            )
            # The watch thread exits the process as soon as it knows.
            time.sleep(self.silence + 4 * self.beat)
            self._publish(self.index, TRY_AGAIN, f"process {self.index} lost its network connection: {reason}")
            self._leave(TRY_AGAIN)
        codes = {UserError: 2, KeyboardInterrupt: 130, SystemExit: getattr(error, "code", 1)}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), 1)
        if isinstance(error, UserError):
            self._say(str(error))
        elif not isinstance(error, (KeyboardInterrupt, SystemExit)):
            traceback.print_exception(error)
        place = f"process {self.index} of {self.count} on {socket.gethostname()}"
        self._publish(self.index, code, f"{place} failed: {reason}")
        self._leave(code)

    def _say(self, message: str) -> None:
        print(f"cbalign: {message}", file=sys.stderr, flush=True)

    def _leave(self, code: int):
        # Skip the barrier of a normal exit. Process 0 hosts the coordination service, so it stays up until the others
        # have read the reason.
        if self.index == 0:
            time.sleep(2 * self.beat)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def stop(self) -> None:
        """Stops the watch thread, before the processes disconnect."""
        self._stopped.set()
        self.join()
