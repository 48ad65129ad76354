"""Many questions at a time, in a program with an event loop; one of them has too little time."""

from __future__ import annotations

import asyncio

import dspex
from dspex.errors import CallTimeout

COUNTRIES = ["France", "Italy", "Japan", "Egypt"]


async def main() -> None:
    async with dspex.AsyncClient(workers=2) as client:
        questions = [f"What is the capital of {country}?" for country in COUNTRIES]
        for question, answer in zip(
            questions, await asyncio.gather(*map(client.ask, questions)), strict=True
        ):
            print(question, answer)

        try:
            await client.ask("What is the meaning of life?", timeout=0.001)
        except CallTimeout as error:
            print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
