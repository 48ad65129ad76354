"""Declare a class that lives in workers: one of DSPy, and one of your own that keeps state."""

from __future__ import annotations

import dspex


class QA(dspex.Module, path="dspy.ChainOfThought", signature="question -> answer"):
    """Answers questions, and says why."""


class TallyInWorker:
    """Runs in a worker; needs nothing of dspex."""

    def __init__(self, start: int = 0) -> None:
        self.total = start

    def __call__(self, by: int = 1) -> int:
        self.total += by
        return self.total

    def reset(self) -> int:
        self.total = 0
        return self.total


class Tally(
    dspex.Module,
    path="module_class.TallyInWorker",
    signature=None,
    methods={"reset": "clear"},
):
    """Counts, in a worker."""


def main() -> None:
    with dspex.Client(workers=2, import_allow=["dspy", "module_class"]) as client:
        with QA.create(client) as qa:
            result = qa.execute(question="What is the capital of France?")
            print("answer:   ", result.answer)
            print("reasoning:", result.reasoning)

        # The instance stays in one worker, with its state, until the block ends.
        with Tally.create(client, start=10) as tally:
            tally.execute(by=5)
            print("tally:    ", tally.execute(by=1).result)
            print("cleared:  ", tally.clear())


if __name__ == "__main__":
    main()
