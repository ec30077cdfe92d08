"""Holds connections that were let in and do nothing, until its input ends: IDENTITY PORT LOGIN INNER COUNT.

With INNER, an address and a port, each has a channel to there with a connection of its own in it, as `ssh -J` has.
"""
import asyncio, getpass, sys

import asyncssh

# Beyond this, servers turn away who has not logged in yet.
AT_ONCE = 5


async def main():
    identity, port, login, inner, count = sys.argv[1:]
    keys = {"client_keys": [identity], "known_hosts": None, "agent_path": None, "config": None, "login_timeout": 120}
    turn, held = asyncio.Semaphore(AT_ONCE), []

    async def hold():
        async with turn:
            connection = await asyncssh.connect("127.0.0.1", int(port), username=login or getpass.getuser(), **keys)
            held.append(connection)
            if inner:
                host, inner_port = inner.rsplit(":", 1)
                held.append(await connection.connect_ssh(host, int(inner_port), username="root", **keys))

    await asyncio.gather(*(hold() for _ in range(int(count))))
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    for connection in held:
        connection.abort()


asyncio.run(main())
