"""Variables of a session: options of the language model, and values for your own programs."""

from __future__ import annotations

import dspex

PROMPT = "Write one sentence about a river."


def greeting() -> str:
    """Runs in a worker, in the session of the call."""
    from snakepit_grpc_bridge.worker import get_variable

    return f"{get_variable('greeting', 'Hello')} from a worker"


def main() -> None:
    with dspex.Client(workers=1, import_allow=["dspy", "session_variables"]) as client:
        client.set_variable("greeting", "Good day")  # global: every session sees it

        with client.start_session() as session:
            print("as it is:      ", session.generate(PROMPT))
            session.variables["max_tokens"] = 5  # an option of the language model
            print("max_tokens = 5:", session.generate(PROMPT))

            print(session.call("session_variables.greeting"))
            session.variables["greeting"] = "Ahoy"  # hides the global one, here alone
            print(session.call("session_variables.greeting"))

        print(client.call("session_variables.greeting"))


if __name__ == "__main__":
    main()
