"""The engine of local models: llama.cpp in a worker of the LM pool. Worker side only."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import snakepit
from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.lm.errors import LmCallFailed, ModelUnreadable
from snakepit_grpc_bridge.lm.native_format import (
    Collected,
    NativeRequest,
    candidates,
    forced,
    read_request,
    response,
    stream_event,
)

__all__ = ["NativeEngine"]

#: Tokens of prompt and answer together. llama.cpp takes memory for all of them at the start.
CONTEXT_TOKENS = 4096
#: Prompt tokens between two looks at whether the call is still wanted (1 s for a small model).
_BATCH_TOKENS = 256
#: Memory for the states of earlier prompts, so that the examples of a task are read once (MB).
_PROMPT_CACHE_MB = 128
_MAX_BASELINES = 256


class NativeEngine:
    """Runs one GGUF model; made in a worker of the LM pool.

    It takes canonical requests as plain data (:mod:`.native_format`) and answers one at a time.
    Stops generating as soon as its call is cancelled or its time is up.

    Args:
        path: the model's file.
        threads: threads that compute, by default somewhat fewer than CPUs the process may use.
        read_ahead: the beginning of prompts to come, read while the model is loaded.

    Raises:
        ConfigurationError: xllamacpp is not installed here.
        ModelUnreadable: llama.cpp can't load the file.

    Example::

        adapter = snakepit.PythonAdapter(
            "snakepit_grpc_bridge.lm.worker_native:NativeEngine", config={"path": "model.gguf"}
        )
    """

    def __init__(
        self, path: str, threads: int | None = None, read_ahead: str | None = None
    ) -> None:
        self._server = _load(path, threads)
        self._baselines: OrderedDict[tuple[str, tuple[str, ...]], list[float]] = OrderedDict()
        if read_ahead:
            self._generate("native", candidates(read_ahead), False, lambda _: None, lambda: True)

    @classmethod
    def warm(cls) -> None:
        """Import what the workers need; the model itself needs threads and is loaded by each."""
        _import_engine()

    @snakepit.command(interruptible=False)
    def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a canonical request.

        Raises:
            LmCallFailed: the request is refused, too long, or was stopped on its way.
        """
        wanted = read_request(request)
        if wanted.choices is not None:
            return self._score(wanted, wanted.choices)
        collected = self._run(wanted, lambda _: None)
        return response(wanted.model, collected.text, collected)

    @snakepit.command(interruptible=False)
    def stream(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Answer a canonical request as a stream of canonical events.

        Raises:
            LmCallFailed: as ``complete``.
        """
        wanted = read_request(request)
        yield stream_event("start", model=wanted.model)
        if wanted.choices is not None:
            done = self._score(wanted, wanted.choices)
            yield stream_event("delta", text=done["message"]["parts"][0]["text"])
            yield stream_event("end", finish_reason="stop", provider_data=done["provider_data"])
            return
        collected: Collected | None = None
        for item in self._pieces(wanted):
            if isinstance(item, Collected):
                collected = item
            else:
                yield stream_event("delta", text=item)
        if collected is not None:
            yield stream_event("end", finish_reason=collected.finish_reason, usage=collected.usage)

    def _pieces(self, wanted: NativeRequest) -> Iterator[str | Collected]:
        """Turn llama.cpp's callbacks into an iterator; the last item is the sum of all."""
        items: queue.SimpleQueue[str | Collected | BaseException] = queue.SimpleQueue()
        stopped = threading.Event()
        check = _still_wanted(stopped)

        def work() -> None:
            try:
                items.put(self._run(wanted, items.put, check))
            except BaseException as error:
                items.put(error)

        thread = threading.Thread(target=work, name="generate", daemon=True)
        thread.start()
        try:
            while True:
                item = items.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Collected):
                    return
        finally:
            stopped.set()
            thread.join()

    def _run(
        self,
        wanted: NativeRequest,
        sink: Callable[[str], object],
        check: Callable[[], bool] | None = None,
    ) -> Collected:
        """Generate; ``sink`` gets the text piece by piece."""
        return self._generate(
            wanted.model, wanted.body, wanted.chat, sink, check or _still_wanted()
        )

    def _generate(
        self,
        model: str,
        body: dict[str, Any],
        chat: bool,
        sink: Callable[[str], object],
        check: Callable[[], bool],
    ) -> Collected:
        collected = Collected(model, chat=chat)
        failures: list[BaseException] = []

        def on_chunk(chunk: Mapping[str, Any]) -> bool:
            # An exception must not pass through llama.cpp's frames.
            try:
                piece = collected.add(chunk)
                if piece:
                    sink(piece)
                if not check():
                    raise LmCallFailed.of("timeout", "the call was stopped", model=model)
            except BaseException as error:
                failures.append(error)
                return True
            return False

        # Progress chunks come between the batches of a prompt, and so does the look at `check`.
        streamed = body | {
            "stream": True,
            "return_progress": True,
            "stream_options": {"include_usage": True},
        }
        if chat:
            self._server.handle_chat_completions(streamed, on_chunk)
        else:
            self._server.handle_completions(streamed, on_chunk)
        if failures:
            raise failures[0]
        return collected

    # --- scores --------------------------------------------------------------------------------

    def _score(self, wanted: NativeRequest, choices: tuple[str, ...]) -> dict[str, Any]:
        scores = self._logprobs(wanted.model, wanted.body["prompt"], choices)
        known = [self._baseline(wanted.model, prompt, choices) for prompt in wanted.baselines]
        for index in range(len(choices)):
            scores[index] -= sum(each[index] for each in known) / max(1, len(known))
        best = max(range(len(choices)), key=scores.__getitem__)
        return response(wanted.model, choices[best], choice=best, scores=scores)

    def _logprobs(self, model: str, prompt: str, choices: tuple[str, ...]) -> list[float]:
        """Return the log-probability of each choice as the continuation of ``prompt``.

        Most are single tokens among the likeliest, and come from one look. The others are forced.
        """
        likely = self._silently(model, candidates(prompt)).next_tokens
        return [
            likely[choice]
            if choice in likely
            else self._silently(model, forced(prompt, choice)).logprob
            for choice in choices
        ]

    def _silently(self, model: str, body: dict[str, Any]) -> Collected:
        return self._generate(model, body, False, lambda _: None, _still_wanted())

    def _baseline(self, model: str, prompt: str, choices: tuple[str, ...]) -> list[float]:
        """Return the scores after a content-free prompt, which are the same for all texts."""
        key = (prompt, choices)
        if key not in self._baselines:
            self._baselines[key] = self._logprobs(model, prompt, choices)
            if len(self._baselines) > _MAX_BASELINES:
                self._baselines.popitem(last=False)
        return self._baselines[key]


def _still_wanted(stopped: threading.Event | None = None) -> Callable[[], bool]:
    """Return a check of the running call, usable from llama.cpp's callbacks and other threads."""
    call = snakepit.current_call()

    def check() -> bool:
        # At its deadline the host cancels the call. To look at the clock here would be a race with
        # the host for who says so, and in what words.
        over = call.cancelled or (stopped is not None and stopped.is_set())
        return not over

    return check


# --- loading -------------------------------------------------------------------------------------


def _import_engine() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigurationError(
            f"local models need xllamacpp, which can't be imported by the workers ({error}); "
            "install it in their environment: pip install 'dspex[embedded]'"
        ) from error
    return xllamacpp


def _load(path: str, threads: int | None) -> Any:
    """Load the model. llama.cpp's server class always listens, so what it listens on is taken away.

    It gets a socket in a folder that only this user can enter; the folder is gone before the first
    request, and nobody can connect to a socket without a name.
    """
    engine = _import_engine()
    parameters = engine.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
    parameters.cache_ram_mib = _PROMPT_CACHE_MB
    parameters.cpuparams.n_threads, parameters.cpuparams_batch.n_threads = _threads(threads)
    parameters.n_threads_http = 1
    parameters.verbosity = 0
    parameters.warmup = parameters.fit_params = parameters.ui = False
    with tempfile.TemporaryDirectory(prefix="snakepit-lm-") as folder:
        # A name that ends in .sock is a socket's path for llama.cpp, not a host.
        parameters.hostnames = [str(Path(folder) / "unused.sock")]
        try:
            server = engine.Server(parameters)
        except RuntimeError as error:
            raise ModelUnreadable(
                f"llama.cpp can't load {path!r}: the file is cut off or damaged, holds a model it "
                "doesn't know, or there is too little memory; get the file again, or use another "
                "model",
                details={"path": path},
            ) from error
    address = str(server.listening_address)
    if not address.startswith("unix:"):
        raise ConfigurationError(
            f"this version of xllamacpp listens on {address}, where anybody on this machine could "
            "use the model; install the version that the package asks for"
        )
    return server


def _threads(threads: int | None) -> tuple[int, int]:
    """Return how many threads write and how many read prompts.

    Threads meet after each layer of each token. Where they share a core with others, they mostly
    wait for one another: two threads on two busy cores write a tenth of what one does. So one core
    is left to the programs; and writing, whose steps are small, takes half of them.
    """
    if threads is not None:
        return threads, threads
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // 2), max(1, cpus - 1)
