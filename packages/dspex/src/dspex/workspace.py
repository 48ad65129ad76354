"""What can be done in a session: run programs, read and write variables, register and call tools.

`AsyncWorkspace` holds each operation once. A client is a workspace whose programs run in a
temporary session each and whose variables and tools are global; a session handle is one where all
of it happens in its session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar, Unpack

from dspex import patterns
from dspex.prediction import Answer, Prediction
from dspex.tools import AsyncTools
from snakepit.options import seconds
from snakepit_grpc_bridge.variables import ChangeCallback, VariableOptions, Watch

T = TypeVar("T")
Signature = str | Mapping[str, Any]
Timeout = float | timedelta | None
MISSING: Final[Any] = object()  # tells "no default" from "the default is None"


class AsyncWorkspace(AsyncTools):
    """The operations that a client and a session handle share."""

    # --- programs ------------------------------------------------------------------------------

    async def predict(
        self,
        signature: Signature,
        inputs: Mapping[str, Any],
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> Prediction:
        """Run `dspy.Predict(signature)` on `inputs` in a worker process.

        Args:
            signature: what goes in and what comes out, as in `"question -> answer"` or
                `"text -> sentiment: Literal['good', 'bad'], score: float"`, or as plain data.
            inputs: a value for each input field.
            config: options of the language model for this call, such as `{"temperature": 0.2}`;
                they win over variables.
            timeout: seconds or a `timedelta` for everything, waiting included; `None` means the
                setting `timeout`.

        Raises:
            SignatureInvalid: the signature doesn't parse. Nothing was sent.
            InputMismatch: `inputs` are not the signature's input fields. Nothing was sent.
            OutputFieldMissing: the model's answer lacks an output field.
            CallTimeout: not done in time; the worker was stopped.
            WorkerLost: the worker died; the error says of what.

        Example:
            >>> with dspex.Client() as client:
            ...     client.predict("question -> answer", {"question": "2 + 2?"}).answer
            '4'
        """
        return await self._run("predict", signature, inputs, config=config, timeout=timeout)

    async def chain_of_thought(
        self,
        signature: Signature,
        inputs: Mapping[str, Any],
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> Prediction:
        """Run `dspy.ChainOfThought(signature)`: as `predict`, with an output field `reasoning`.

        Example:
            >>> result = client.chain_of_thought("question -> answer", {"question": "2 + 2?"})
            >>> sorted(result)
            ['answer', 'reasoning']
        """
        return await self._run(
            "chain_of_thought", signature, inputs, config=config, timeout=timeout
        )

    async def call(
        self,
        path: str,
        method: str = "__call__",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: Timeout = None,
    ) -> Any:
        """Call a function or a method in a worker process.

        Args:
            path: the dotted path of a module, class or function, inside the setting
                `import_allow`; in a session also `"stored.<id>"`, an instance that it keeps.
            method: what to call there; `"__init__"` creates an instance, in a session.
            args: positional arguments, plain data.
            kwargs: keyword arguments, plain data.
            timeout: as in `predict`.

        Raises:
            NotAllowed: the path is outside `import_allow`.
            ValidationFailed: there is no such thing.
            RemoteError: it raised; the error is also the builtin it stands for.

        Example:
            >>> client.call("dspy.evaluate", "normalize_text", ["The Eiffel Tower!"])
            'eiffel tower'
        """
        return await self.platform.dspy.call(
            path, method, args, kwargs, session_id=self._session_id, timeout=timeout
        )

    # --- patterns ------------------------------------------------------------------------------

    async def ask(
        self, question: str, *, reasoning: bool = False, timeout: Timeout = None
    ) -> Answer:
        """Answer a question. With `reasoning=True` the answer's `reasoning` holds the thoughts.

        Raises:
            InputMismatch: the question is no text, or empty.
            OutputFieldMissing: the model gave no answer.

        Example:
            >>> dspex.ask("What is the capital of France?")
            'Paris'
        """
        return await self._drive(patterns.ask(question, reasoning=reasoning), timeout)

    async def classify(
        self, text: str, categories: Sequence[str], *, timeout: Timeout = None
    ) -> str:
        """Choose the category that fits a text: the result is one of `categories`, exactly.

        Raises:
            InputMismatch: the text or the categories are empty, or a category is there twice.
            InvalidCategory: the model chose something else, twice.

        Example:
            >>> dspex.classify("I love it", ["positive", "negative"])
            'positive'
        """
        return await self._drive(patterns.classify(text, categories), timeout)

    async def summarize(self, text: str, *, max_length: int = 150, timeout: Timeout = None) -> str:
        """Summarize a text in at most `max_length` words.

        A model that writes more is asked again; then the summary is cut after the last whole
        sentence that fits.

        Raises:
            ValidationFailed: `max_length` is not a whole number above zero.

        Example:
            >>> text = "The parcel came late, but the staff were friendly and helped at once."
            >>> len(client.summarize(text, max_length=10).split()) <= 10
            True
        """
        return await self._drive(patterns.summarize(text, max_length=max_length), timeout)

    async def extract_entities(
        self,
        text: str,
        *,
        types: Sequence[str] = patterns.DEFAULT_ENTITY_TYPES,
        timeout: Timeout = None,
    ) -> dict[str, list[str]]:
        """Find the named entities of each type in a text.

        Each is named once, in the order found, and only if it occurs in the text: a model also
        lists what it merely associates with it.

        Example:
            >>> dspex.extract_entities("Ada Lovelace lived in London.")
            {'people': ['Ada Lovelace'], 'organizations': [], 'locations': ['London']}
        """
        return await self._drive(patterns.extract_entities(text, types=types), timeout)

    async def generate(
        self, prompt: str, *, style: str = "natural", length: int = 150, timeout: Timeout = None
    ) -> str:
        """Write text for a prompt, of at most `length` words (kept as in `summarize`).

        Example:
            >>> len(client.generate("A river", style="poetic", length=8).split()) <= 8
            True
        """
        return await self._drive(patterns.generate(prompt, style=style, length=length), timeout)

    async def answer_with_context(
        self, question: str, context: str, *, timeout: Timeout = None
    ) -> Answer:
        """Answer a question from what `context` says.

        Example:
            >>> client.answer_with_context("Where did Ada live?", "Ada lived in London.")
            'London'
        """
        return await self._drive(patterns.answer_with_context(question, context), timeout)

    # --- variables -----------------------------------------------------------------------------

    async def set_variable(self, name: str, value: Any) -> None:
        """Set a variable, creating it if it is new.

        A client's variables are global: every session sees them unless it has its own of that
        name. `temperature`, `max_tokens`, `top_p` and names that begin with `ml_` are options of
        the language model for the programs of the session.

        Example:
            >>> client.set_variable("temperature", 0.2)
            >>> client.get_variable("temperature")
            0.2
        """
        await self.platform.variables.put(self._home, name, value)

    async def create_variable(
        self,
        name: str,
        type: str,  # noqa: A002 - the word users know it by
        value: Any,
        **options: Unpack[VariableOptions],
    ) -> None:
        """Declare a variable with a type and constraints, which each later value has to keep.

        Args:
            type: such as `"float"`, `"choice"` or `"embedding"`.
            constraints: such as `{"min": 0, "max": 2}`, by the type.
            metadata: plain data to keep with it.
            read_only: it can't be written, only deleted.
            ttl: seconds after its last write when it is gone.
            overwrite: replace one of that name.

        Raises:
            VariableExists: there is one of that name.
            UnsupportedType: there is no such type.
            ValidationFailed: the name, the value or a constraint is wrong.

        Example:
            >>> client.create_variable("limit", "integer", 10, constraints={"max": 100})
            >>> client.variables["limit"]
            10
        """
        await self.platform.variables.create(self._home, name, type, value, **options)

    async def get_variable(self, name: str, default: Any = MISSING) -> Any:
        """Return a variable's value, or the default if one is given and there is no such variable.

        Raises:
            VariableNotFound: there is none, and no default was given.

        Example:
            >>> client.get_variable("limit", 10)
            10
        """
        return await self.platform.variables.get(
            self._home, name, *(() if default is MISSING else (default,))
        )

    async def update_variable(
        self, name: str, function: Callable[[Any], Any], default: Any = MISSING
    ) -> Any:
        """Replace the value of a variable of this workspace's own by `function` of it; return that.

        No write is lost: `function` is called again when somebody else has written meanwhile. It is
        plain and quick, and has no effects of its own.

        Raises:
            VariableNotFound: there is none of that name here, and no `default` to begin with.
            ValidationFailed: the new value does not fit.

        Example:
            >>> client.update_variable("visits", lambda visits: visits + 1, default=0)
            1
            >>> client.update_variable("visits", lambda visits: visits + 1)
            2
        """
        variable = await self.platform.variables.update(
            self._home, name, function, *(() if default is MISSING else (default,))
        )
        return variable.value

    async def list_variables(self) -> dict[str, Any]:
        """Return every variable that can be read here, by name: a session's own and the global.

        Example:
            >>> client.set_variable("limit", 10)
            >>> client.list_variables()
            {'limit': 10}
        """
        listed = await self.platform.variables.list(self._home, include_global=True)
        return {variable.name: variable.value for variable in listed}

    async def delete_variable(self, name: str) -> bool:
        """Delete a variable of this workspace's own; say whether there was one.

        Example:
            >>> client.delete_variable("limit")
            False
        """
        return await self.platform.variables.delete(self._home, name)

    async def read_variables_as(self, model: type[T]) -> T:
        """Return an instance of a dataclass or pydantic model whose fields are variables.

        Raises:
            ValidationFailed: a field without default has no variable, or the class refuses a value.

        Example:
            >>> from dataclasses import dataclass
            >>> @dataclass
            ... class Search:
            ...     query: str
            ...     limit: int = 10
            >>> with client.start_session() as session:
            ...     session.variables["query"] = "snakes"
            ...     session.read_variables_as(Search)
            Search(query='snakes', limit=10)
        """
        return await self.platform.variables.read_as(self._home, model)

    async def write_variables_from(self, instance: object) -> None:
        """Write the fields of a dataclass or pydantic model as variables, all or none of them.

        Raises:
            ValidationFailed: it is neither, or a value does not fit its variable.

        Example:
            >>> from dataclasses import dataclass
            >>> @dataclass
            ... class Search:
            ...     query: str
            >>> client.write_variables_from(Search("snakes"))
            >>> client.get_variable("query")
            'snakes'
        """
        await self.platform.variables.write_from(self._home, instance)

    async def watch_variables(
        self, *names: str, initial: bool = True, callback: ChangeCallback | None = None
    ) -> Watch:
        """Watch variables of this workspace's own, by name or all of them.

        Iterate over what it returns, with `async for`: it ends when the session does or the watch
        is closed. What there is already comes first, unless `initial` is False. No change is
        missed, a write of an equal value is none. A `callback` is told instead of an iterator, on
        the platform's loop.

        Example:
            >>> async with dspex.AsyncClient() as client:
            ...     await client.set_variable("limit", 1)
            ...     async with await client.watch_variables("limit") as watch:
            ...         async for change in watch:
            ...             break
            >>> change.kind, change.value
            ('initial', 1)
        """
        return await self.platform.variables.watch(
            self._home, *names, initial=initial, callback=callback
        )

    # --- how they run --------------------------------------------------------------------------

    async def _run(
        self,
        kind: str,
        signature: Signature,
        inputs: Mapping[str, Any],
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> Prediction:
        service = self.platform.dspy
        run = service.predict if kind == "predict" else service.chain_of_thought
        return Prediction(
            await run(
                signature, inputs, session_id=self._session_id, config=config, timeout=timeout
            )
        )

    async def _drive(self, steps: patterns.Steps[T], timeout: Timeout) -> T:
        budget = self.platform.settings.timeout if timeout is None else timeout
        return await patterns.drive(steps, self._answer, seconds("timeout", budget))

    async def _answer(self, request: patterns.Request, left: float) -> Prediction:
        kind = "chain_of_thought" if request.reasoning else "predict"
        return await self._run(kind, request.signature, request.inputs, timeout=left)
