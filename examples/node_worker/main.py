"""Workers in Node behind a pool: calls, a stream, and a function of this program. Needs Node."""

from __future__ import annotations

import asyncio
from pathlib import Path

from snakepit import HostCall, Pool, ProgramAdapter

WORKER = Path(__file__).with_name("worker.js")
GLOSSARY = {"私": "I", "は": "(topic)", "本": "book", "を": "(object)", "読む": "read"}


async def look_up(_: HostCall, word: str) -> str:
    """The function that workers may call."""
    return GLOSSARY.get(word, "?")


async def main() -> None:
    german = ProgramAdapter(["node", str(WORKER)], config={"locale": "de"})
    async with Pool(german, size=2) as pool:
        print(await pool.execute("price", {"amount": 1234.5, "currency": "EUR"}, timeout=10.0))
        print(await pool.execute("sorted", {"words": ["Zebra", "Öl", "Apfel"]}))

    japanese = ProgramAdapter(["node", str(WORKER)], config={"locale": "ja"})
    async with Pool(japanese, size=1, host_functions={"look_up": look_up}) as pool:
        words = [word async for word in pool.execute_stream("words", {"text": "私は本を読む。"})]
        print(words)
        print(await pool.execute("gloss", {"words": words}))


if __name__ == "__main__":
    asyncio.run(main())
