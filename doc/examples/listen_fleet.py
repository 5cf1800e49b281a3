#!/usr/bin/python3
"""Prints the events of a fleet, each once, for ever or as many as told:

listen_fleet.py CONSUMER COUNT ROUTER PARTITION...

ROUTER and PARTITION are connection strings; COUNT 0: for ever.  The partitions
ring (NOTIFY alloc_events), the router gives the events: rows of its consumer,
which it makes if there is none.
"""
import select
import sys

import psycopg2
import psycopg2.errors

consumer, left = sys.argv[1], int(sys.argv[2])
forever = left == 0


def listen(conninfo):
    connection = psycopg2.connect(conninfo)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("LISTEN alloc_events")
    return connection


def fetch(connection, max_events):
    """The next events; the consumer's position is committed with our work."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT type, sku, orderid, qty FROM alloc.fetch_events(%s, %s)",
            (consumer, max_events))
        events = cursor.fetchall()
        for event in events:
            print(*event, flush=True)
    return len(events)


router = psycopg2.connect(sys.argv[3])
partitions = [listen(conninfo) for conninfo in sys.argv[4:]]
try:
    with router, router.cursor() as cursor:
        cursor.execute("SELECT alloc.create_consumer(%s)", (consumer,))
except psycopg2.errors.DuplicateObject:
    pass
print("listening", flush=True)

while forever or left > 0:
    given = fetch(router, 1000 if forever else min(left, 1000))
    left -= given
    if given == 0:
        # Whatever was committed before is fetched: the next is heard.  After a
        # minute it is looked again, should a partition have been away.
        select.select(partitions, [], [], 60)
    for partition in partitions:
        partition.poll()
        partition.notifies.clear()
