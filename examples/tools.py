"""A program in a worker process calls a function of this process.

`describe_capital` runs in a worker: it asks the language model, then this process, which alone
has the table of cities.
"""

from __future__ import annotations

import os

import dspex

INHABITANTS = {"Paris": 2_100_000, "Rome": 2_750_000}


def describe_capital(country: str) -> str:
    """Runs in a worker; DSPy is imported there, and not in the host."""
    import dspy

    from snakepit_grpc_bridge.worker import call_tool

    answer = dspy.Predict("question -> answer")(question=f"What is the capital of {country}?")
    inhabitants = call_tool("inhabitants", city=answer.answer)
    return f"{answer.answer} has {inhabitants} inhabitants, says worker process {os.getpid()}"


def main() -> None:
    # Workers call nothing outside of import_allow; this file is the module "tools".
    with dspex.Client(workers=1, import_allow=["dspy", "tools"]) as client:

        @client.tool
        def inhabitants(city: str) -> int:
            """How many people live in a city."""
            print(f"the tool runs in process {os.getpid()}, for the city {city!r}")
            return INHABITANTS[city]

        print(client.call("tools.describe_capital", args=["France"]))

        try:
            client.call_tool("inhabitants", {"town": "Paris"})
        except dspex.errors.ValidationFailed as error:
            print("refused:", error)


if __name__ == "__main__":
    main()
