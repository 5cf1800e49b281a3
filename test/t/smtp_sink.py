#!/usr/bin/python3
"""A mail server for the tests: takes mails and sends them nowhere.

smtp_sink.py DIRECTORY PORT     0: any port

Prints its port.  Each mail becomes a line of JSON in DIRECTORY/mails, before
the server answers.  Files in DIRECTORY tell it what to do: "hold" to answer
only when that is gone, "refuse" to refuse mails that have its content in their
subject.
"""
import asyncio
import email
import email.policy
import json
import pathlib
import sys

from aiosmtpd.smtp import SMTP

directory = pathlib.Path(sys.argv[1])


class Sink:
    """Called by SMTP for each mail."""

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        refuse = directory / "refuse"
        if refuse.exists() and refuse.read_text() in mail["Subject"]:
            return "554 not this one"
        # In one piece: the sink may be killed at any moment.
        with open(directory / "mails", "ab", buffering=0) as mails:
            mails.write(json.dumps({
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "headers": sorted(mail.keys()),
                "subject": mail["Subject"],
                "message_id": mail["Message-ID"],
                "date": mail["Date"].datetime.isoformat(),
                "defects": [str(defect) for header in mail.values()
                            for defect in header.defects] + [str(d) for d in mail.defects],
                "longest": max(map(len, envelope.content.splitlines())),
                "raw": envelope.content.decode("ascii"),
                "body": mail.get_payload(decode=True).decode(),
            }).encode() + b"\n")
        while (directory / "hold").exists():
            await asyncio.sleep(0.05)
        return "250 OK"


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Sink(), loop=loop), "127.0.0.1", int(sys.argv[2]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
