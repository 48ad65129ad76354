"""A session that goes on after its program has ended: its variables and its tools by path are kept.

The program runs twice here, as two clients one after the other that name the same database. In
between, nothing is left but the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import dspex

ORDER = "order-17"
PRICES = {"tea": 3.5, "milk": 1.25}


def add(item: str) -> float:
    """Add an item to the order. Runs in a worker, in the session of its caller."""
    from snakepit_grpc_bridge.worker import call_tool, update_variable

    price = call_tool("price", item=item)
    total: float = update_variable(
        "total", lambda total: total + price
    )  # refused if it is too much
    update_variable("items", lambda items: [*items, item], default=[])
    return total


def start(storage: str) -> dspex.Client:
    client = dspex.Client(
        workers=1, storage=storage, import_allow=["dspy", "durable_session"], model="embedded"
    )

    # A function of this process, so each run registers it. It only reads: calls may be retried.
    @client.tool(idempotent=True)
    def price(item: str) -> float:
        return PRICES[item]

    return client


def first_run(storage: str) -> None:
    with start(storage) as client:
        session = client.start_session(ORDER, ttl=None, metadata={"customer": "ada"})
        session.create_variable("total", "float", 0.0, constraints={"max": 5.0})
        session.register_python_function("add", "durable_session:add")
        print("first run: ", session.call_tool("add", {"item": "tea"}))


def second_run(storage: str) -> None:
    with start(storage) as client, client.find_session(ORDER) as session:
        print("second run:", session.call_tool("add", {"item": "milk"}), session.variables["items"])
        try:
            session.call_tool("add", {"item": "tea"})
        except dspex.errors.ToolExecutionFailed as error:
            print("refused:   ", error.__cause__)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder, 'orders.db')}"
        first_run(storage)
        second_run(storage)


if __name__ == "__main__":
    main()
