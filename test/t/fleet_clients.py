#!/usr/bin/python3
"""Customers of a fleet, who go on whatever dies:

fleet_clients.py CONNINFO SECONDS CLIENTS SKUS

Each makes random orders of one to six skus through the router, and repeats a
call until it has an answer; but some orders it leaves when somebody has died.
Of the orders that it has it cancels the oldest.  Prints a line of JSON for each
order, and another when it is cancelled: what became of it, with the skus that
are allocated.  Ends with a line that counts answers and errors.
"""
import contextlib
import fcntl
import json
import multiprocessing
import random
import sys
import tempfile
import time

import psycopg2
import psycopg2.errorcodes as codes

CONNINFO, SECONDS, CLIENTS, SKUS = sys.argv[1], *map(int, sys.argv[2:5])
# Locked by who writes: lines come whole.  A semaphore needs /dev/shm.
OUTPUT = tempfile.TemporaryFile()
# Not an answer: somebody died, or took the order over.
AGAIN = {codes.CONNECTION_FAILURE, codes.SERIALIZATION_FAILURE, codes.ADMIN_SHUTDOWN,
         codes.CRASH_SHUTDOWN, codes.CANNOT_CONNECT_NOW, codes.DEADLOCK_DETECTED}
# Answers to confirm() and ship().
REFUSED = {"SK005", codes.OBJECT_NOT_IN_PREREQUISITE_STATE}


# Orders that a client has at the same time.
ORDERS = 15


@contextlib.contextmanager
def output():
    """Nobody else writes."""
    fcntl.lockf(OUTPUT, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(OUTPUT, fcntl.LOCK_UN)


class Left(Exception):
    """The client does not want to know."""


class Client:
    """One customer after the other, by one connection."""

    def __init__(self, number):
        self.number = number
        self.random = random.Random(number)
        self.connection = None
        self.errors = {}
        self.calls = 0
        self.mine = []

    def rows(self, query, *arguments, impatience=0):
        """Calls until there is an answer, or the client has no patience; None: it
        is refused."""
        while True:
            try:
                if self.connection is None:
                    self.connection = psycopg2.connect(CONNINFO)
                    self.connection.autocommit = True
                with self.connection.cursor() as cursor:
                    cursor.execute(query, arguments)
                    self.calls += 1
                    return cursor.fetchall()
            except psycopg2.Error as error:
                # Without a code the router's connection has gone.
                code = error.pgcode or "lost"
                self.errors[code] = self.errors.get(code, 0) + 1
                if code in REFUSED:
                    return None
                if code not in AGAIN and code != "lost":
                    raise
                if self.connection is None or self.connection.closed:
                    self.connection = None
                if self.random.random() < impatience * (5 if code == "lost" else 1):
                    raise Left from error
                time.sleep(self.random.uniform(0.01, 0.1))

    def cart(self, orderid, lines):
        """Some lines are held, then confirmed or released."""
        held = [sku for sku, qty in lines
                if self.rows("SELECT alloc.hold(%s, %s, %s, %s)", orderid, sku, qty,
                             self.random.choice(("1 second", "1 minute"))) != [(None,)]]
        if self.random.random() < 0.3:
            self.rows("SELECT alloc.release(%s)", orderid)
            return {"kind": "released", "skus": []}
        time.sleep(self.random.choice((0, 0, 0.9, 1.1)))
        answer = self.rows("SELECT alloc.confirm(%s)", orderid)
        if answer is None:
            self.rows("SELECT alloc.release(%s)", orderid)
            return {"kind": "expired", "skus": []}
        self.mine.append((orderid, held))
        return {"kind": "confirmed", "skus": held}

    def order(self, orderid, lines):
        """An order, of which a line may have been held.  What is shipped comes again."""
        mode = self.random.choice(("all", "all", "all", "partial", "backorder"))
        if self.random.random() < 0.1:
            sku, qty = lines[0]
            self.rows("SELECT alloc.hold(%s, %s, %s, '1 second')", orderid, sku, qty)
        array = "ARRAY[" + ", ".join("(NULL, %s, %s)" for _ in lines) + "]::alloc.order_line[]"
        try:
            answer = self.rows(
                f"SELECT sku, batchref, status FROM alloc.allocate_order(%s, {array}, %s)",
                orderid, *(value for line in lines for value in line), mode,
                impatience=0.1 if mode == "all" else 0)
        except Left:
            return {"kind": "left", "skus": [sku for sku, _ in lines]}
        got = [sku for sku, batchref, _ in answer if batchref is not None]
        waits = [sku for sku, _, status in answer if status == "backordered"]
        kind = mode if mode != "all" else "all" if len(got) == len(lines) else "refused"
        if got and self.random.random() < 0.1:
            self.rows("SELECT alloc.ship(%s)", orderid)
            for sku, qty in lines:
                if sku in got:
                    self.rows("SELECT alloc.add_batch(%s, %s, %s)", f"{sku} for {orderid}", sku, qty)
            return {"kind": "shipped", "skus": got, "waits": waits}
        if kind != "refused":
            self.mine.append((orderid, got + waits))
        return {"kind": kind, "skus": got, "waits": waits}

    def cancel(self, orderid, skus):
        """A line that waits may be served at any moment."""
        for sku in skus:
            self.rows("SELECT alloc.cancel_backorder(%s, %s)", orderid, sku)
            self.rows("SELECT alloc.deallocate(%s, %s)", orderid, sku)
        write(orderid=orderid, kind="cancelled", skus=[])

    def run(self, until):
        n = 0
        while time.time() < until:
            n += 1
            orderid = f"order {self.number}.{n}"
            skus = self.random.sample(range(1, SKUS + 1), self.random.randint(1, 6))
            lines = [(f"sku {sku}", self.random.randint(1, 5)) for sku in skus]
            what = self.cart if self.random.random() < 0.2 else self.order
            told = what(orderid, lines)
            write(orderid=orderid, **told)
            if len(self.mine) > ORDERS:
                self.cancel(*self.mine.pop(0))
        write(calls=self.calls, errors=self.errors)


def write(**told):
    with output():
        print(json.dumps(told), flush=True)


def main():
    until = time.time() + SECONDS
    # Not every Python forks by default.
    fork = multiprocessing.get_context('fork')
    clients = [fork.Process(target=lambda n=n: Client(n).run(until))
               for n in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    sys.exit(any(client.exitcode for client in clients))


main()
