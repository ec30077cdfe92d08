"""asyncssh, with many forwarded connections at once: to the server over there whose port is named, and back from there."""
import asyncio, os, sys

import asyncssh

CONNECTIONS = 100


async def ask(reader, writer, number):
    text = f"{number} ".encode() * 2000
    writer.write(text)
    writer.write_eof()
    answer = await reader.read()
    assert answer == text + b"!", (number, len(answer))
    writer.close()


async def main():
    where = {"port": int(os.environ["PORT"]), "username": os.environ["LOGIN"]}
    keys = {"client_keys": [os.environ["IDENTITY"]], "known_hosts": None, "agent_path": None, "config": None}
    async with asyncssh.connect("127.0.0.1", **where, **keys) as connection:
        opened = [await connection.open_connection("127.0.0.1", int(sys.argv[1])) for _ in range(CONNECTIONS)]
        await asyncio.gather(*(ask(*streams, number) for number, streams in enumerate(opened)))

        async def answer(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
            writer.write(b"!")
            writer.write_eof()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", port)
        # Connections that begin over there come back here.
        there = await asyncio.gather(
            *(connection.open_connection("127.0.0.1", listener.get_port()) for _ in range(CONNECTIONS))
        )
        await asyncio.gather(*(ask(*streams, number) for number, streams in enumerate(there)))
        listener.close()


asyncio.run(main())
