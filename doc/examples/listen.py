#!/usr/bin/python3
"""Prints the notifications of alloc, for ever or as many as told:

listen.py CONNINFO [COUNT]
"""
import select
import sys

import psycopg2

connection = psycopg2.connect(sys.argv[1])
connection.autocommit = True
with connection.cursor() as cursor:
    for channel in ("alloc_allocated", "alloc_out_of_stock", "alloc_events"):
        cursor.execute(f"LISTEN {channel}")
print("listening", flush=True)

left = int(sys.argv[2]) if len(sys.argv) > 2 else None
while left != 0:
    if not connection.notifies:
        select.select([connection], [], [])
    connection.poll()
    while connection.notifies and left != 0:
        notification = connection.notifies.pop(0)
        print(notification.channel, notification.payload, flush=True)
        left = left and left - 1
