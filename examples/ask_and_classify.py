"""Ask a question and classify a text, with the embedded model: no key, no network."""

from __future__ import annotations

import dspex

REVIEW = "The room was clean, the staff were friendly and the breakfast was delicious."


def main() -> None:
    with dspex.Client(workers=1) as client:
        print("answer:  ", client.ask("What is the capital of France?"))
        print("category:", client.classify(REVIEW, ["positive", "negative"]))


if __name__ == "__main__":
    main()
