"""snakepit on its own: a class in worker processes, with streams, deadlines and crashes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import snakepit
from snakepit.errors import CallTimeout, WorkerLost


class Primes:
    """Lives in the workers; the host imports it here only because it is in the same file."""

    @snakepit.command
    def factors(self, number: int) -> list[int]:
        """The prime factors of a number."""
        found, divisor = [], 2
        while divisor * divisor <= number:
            while number % divisor == 0:
                found.append(divisor)
                number //= divisor
            divisor += 1
        return [*found, number] if number > 1 else found

    @snakepit.command
    def primes(self) -> Iterator[int]:
        """All of them; the caller stops when it has enough."""
        number = 2
        while True:
            if self.factors(number) == [number]:
                yield number
            number += 1

    @snakepit.command
    def largest(self, below: int) -> int:
        """The largest prime below a number; tells the host how far it has looked."""
        call = snakepit.current_call()
        number = below - 1
        while self.factors(number) != [number]:
            call.call_host("rejected", {"number": number})
            number -= 1
        return number

    @snakepit.command
    def crash(self) -> None:
        """End as a fault in native code would."""
        print("about to abort")
        os.abort()


async def main() -> None:
    rejected: list[str] = []

    def reject(call: snakepit.HostCall, number: int) -> None:
        rejected.append(f"{number} by {call.worker_id}")

    adapter = snakepit.PythonAdapter("pool_of_a_class:Primes")
    async with snakepit.Pool(adapter, size=2, host_functions={"rejected": reject}) as pool:
        print("factors:", await pool.execute("factors", {"number": 1001}))

        first = []
        async for prime in pool.execute_stream("primes"):
            first.append(prime)
            if len(first) == 5:
                break
        print("stream:", first)

        print("largest:", await pool.execute("largest", {"below": 100}), "rejected:", rejected)

        try:
            await pool.execute("factors", {"number": 2**127 - 1}, timeout=0.2)
        except CallTimeout as error:
            print("deadline:", error)

        try:
            await pool.execute("crash")
        except WorkerLost as error:
            print("crash:", error.signal, "outcome:", error.outcome, "|", error.last_output.strip())

        print("and on:", await pool.execute("factors", {"number": 360}))


if __name__ == "__main__":
    asyncio.run(main())
