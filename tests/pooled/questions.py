"""
A program: several processes, each with many sessions, ask a database questions with one answer.

Arguments: `ours` or `plain`, processes, sessions of each, questions of each session. What there is
to connect to comes from ``DB_…``. It prints how often the answer was right, wrong, or an error.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from moorage import Database

# Each is another statement, so that whoever gets a stranger's one under the same name notices.
QUESTIONS = [text(f"SELECT {k} + CAST(:number AS int), CAST(:tag AS text)") for k in range(40)]


async def ask(engine: Any, name: str, questions: int, seed: int) -> Counter[str]:
    """Ask in one session, one transaction per question."""
    found: Counter[str] = Counter()
    dice = random.Random(seed)
    for number in range(questions):
        k = dice.randrange(len(QUESTIONS))
        tag = f"{name} {number}"
        try:
            async with engine.connect() as connection:
                row = await connection.execute(QUESTIONS[k], {"number": number, "tag": tag})
                found["right" if tuple(row.one()) == (k + number, tag) else "wrong"] += 1
        except Exception as error:  # noqa: BLE001 (whatever it is, it is counted)
            found[f"error: {type(error).__name__}"] += 1
    return found


async def work(variant: str, process: int, sessions: int, questions: int) -> Counter[str]:
    """Ask in all sessions of one process."""
    database = Database()
    # Behind a pooler the plain engine is what most programs use: its URL and nothing else.
    plain = create_async_engine(database.engine.url, pool_size=sessions)
    engine = database.engine if variant == "ours" else plain
    asking = (
        ask(engine, f"process {process} session {session}", questions, process * 1000 + session)
        for session in range(sessions)
    )
    found = sum(await asyncio.gather(*asking), Counter())
    await database.dispose()
    await plain.dispose()
    return found


def main(variant: str, processes: int, sessions: int, questions: int) -> None:
    """Fork the processes and add up what they found."""
    pipes = []
    for process in range(processes):
        reading, writing = os.pipe()
        if os.fork() == 0:
            found = asyncio.run(work(variant, process, sessions, questions))
            os.write(writing, json.dumps(found).encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    total: Counter[str] = Counter()
    for pipe in pipes:
        with open(pipe, "rb") as answers:  # noqa: PTH123 (a descriptor)
            total.update(json.loads(answers.read()))
        os.wait()
    print(json.dumps(total))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
