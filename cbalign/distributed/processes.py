"""The processes of one run: how they find each other, stop at the same step, and learn that one of them is gone.

A run of one process never comes near `jax.distributed`. Where there are several, each tells the others every few
seconds that it lives, through the key-value store of JAX's coordination service: a process that was killed, or that
failed, ends the others with a line that names it, instead of leaving them in a collective for ever.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback

import jax

from cbalign.errors import UserError
from cbalign.distributed import devices
from cbalign.distributed.cluster import how_to_join

TRY_AGAIN = 75
"""Code of exit (EX_TEMPFAIL) of a run that was told to stop, or lost a process: started again, it goes on."""

_BEAT = 5.0  # seconds from one sign of life to the next
_SILENCE = "CBALIGN_SILENCE_SECONDS"  # environment: after that long without one a process is given up; 60 by default

# How the collectives of the backends say that the other end is gone.
_LOST = ("gloo", "nccl", "connection", "socket closed", "unavailable", "deadline")


@contextlib.contextmanager
def joined(*, coordinator: str = "", num_processes: int | None = None, process_id: int | None = None,
           agree_to_stop: bool = False):
    """Joins the other processes for the time of the block, where flags or environment say that there are any.

    Must come before JAX is used. An error in the block is printed here and ends the process without waiting for the
    others, which are told of it.

    Args:
      coordinator: "HOST:PORT" of process 0, or "".
      num_processes: how many there are, or None.
      process_id: which this one is, or None.
      agree_to_stop: SIGTERM is a notice to all, to be asked for with `StopSignals.agreed`.

    Raises:
      UserError: flags or environment are incomplete or contradict each other.
    """
    arguments = how_to_join(os.environ, coordinator=coordinator, num_processes=num_processes, process_id=process_id)
    if arguments is None:
        yield
        return
    # CPU devices of different processes talk through Gloo.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", agree_to_stop)
    jax.distributed.initialize(**arguments)
    watch = _Watch(silence=float(os.environ.get(_SILENCE, 60)))
    try:
        watch.start()
        devices.meet()
        yield
        # No process leaves, and takes the coordination service with it, while another one still works.
        devices.barrier("end")
    except BaseException as error:
        watch.fail(error)
    watch.stop()
    jax.distributed.shutdown()


class StopSignals:
    """Remembers SIGTERM and SIGINT, so that the loop can save and stop between two steps.

    Attributes:
      caught: the name of the signal, or "".
    """

    def __init__(self):
        self.caught = ""
        self._before = {}

    def __enter__(self):
        # With several processes SIGTERM is JAX's: it carries the notice to the others.
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
        """Whether the run is to stop after this step: the same answer in all processes.

        To be asked after every step. A notice that reached one process stops all of them at the next step that none
        has come to yet.
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
    """The code of a run that a signal stopped after it had saved: 75 for SIGTERM, 130 for Ctrl-C, which is meant."""
    return TRY_AGAIN if signal_name == "SIGTERM" else 128 + signal.Signals[signal_name]


class _Watch(threading.Thread):
    """Tells the others that this process lives, and ends it when one of them does not.

    Keys: "cbalign/alive/INDEX", "HOST COUNT"; "cbalign/failed/INDEX", JSON {"code", "message"} of the first failures.
    Process 0, with which the service lives, judges who is silent. When it is itself killed, JAX ends the others at
    once.
    """

    def __init__(self, *, silence: float):
        super().__init__(name="watch", daemon=True)
        self.index, self.count, self.silence = jax.process_index(), jax.process_count(), silence
        self.beat = min(_BEAT, silence / 4)
        self._client = jax._src.distributed.global_state.client  # the service's store has no public name
        self._stopped = threading.Event()
        self._heard = {}  # index -> (value of its key, when it last changed)
        self._hosts = {}

    def run(self) -> None:
        beats = 0
        while not self._stopped.is_set():
            beats += 1
            try:
                value = f"{socket.gethostname()} {beats}"
                self._client.key_value_set(f"cbalign/alive/{self.index}", value, allow_overwrite=True)
                if self.index == 0:
                    self._judge()
                failures = self._failures()
            except jax.errors.JaxRuntimeError:
                failures = {}  # the service is away: JAX itself ends the process, or it comes back
            for index, failure in failures.items():
                if index != self.index and not self._stopped.is_set():
                    self._say(failure["message"])
                    self._leave(failure["code"])
            self._stopped.wait(self.beat)

    def _judge(self) -> None:
        now = time.monotonic()
        for key, value in self._client.key_value_dir_get("cbalign/alive/"):
            index = int(key.rsplit("/", 1)[1])
            if self._heard.get(index, ("",))[0] != value:
                self._heard[index] = (value, now)
            elif now - self._heard[index][1] > self.silence:
                host = value.rsplit(" ", 1)[0]
                self._publish(index, TRY_AGAIN, f"process {index} of {self.count} on {host} has given no sign of life "
                              f"for {self.silence:.0f} s: it was killed or its host is gone. Started again, the run "
                              "goes on from its newest checkpoint")

    def _failures(self) -> dict:
        entries = self._client.key_value_dir_get("cbalign/failed/")
        return {int(key.rsplit("/", 1)[1]): json.loads(value) for key, value in entries}

    def _publish(self, index: int, code: int, message: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            value = json.dumps({"code": code, "message": message})
            self._client.key_value_set(f"cbalign/failed/{index}", value, allow_overwrite=True)

    def fail(self, error: BaseException):
        """Prints the error, tells the others and ends this process."""
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in reason.lower() for word in _LOST):
            self._say(f"process {self.index} of {self.count} lost touch with another one ({reason}); finding out which")
            # The watch ends the process as soon as it knows.
            time.sleep(self.silence + 4 * self.beat)
            self._publish(self.index, TRY_AGAIN, f"the network failed process {self.index}: {reason}")
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
        # Without the waiting for one another at a normal end; but the service, which is process 0's, is left to the
        # others until they have read why.
        if self.index == 0:
            time.sleep(2 * self.beat)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def stop(self) -> None:
        """Ends the watch, before the processes part."""
        self._stopped.set()
        self.join()
