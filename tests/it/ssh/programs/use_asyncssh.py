"""asyncssh, with many channels on one connection."""
import asyncio, os

import asyncssh

CHANNELS = 100


async def main():
    where = {"port": int(os.environ["PORT"]), "username": os.environ["LOGIN"]}
    keys = {"client_keys": [os.environ["IDENTITY"]], "known_hosts": None, "agent_path": None, "config": None}
    async with asyncssh.connect("127.0.0.1", **where, **keys) as connection:
        # All are open at once before the first ends.
        channels = [await connection.create_process("cat; exit 3") for _ in range(CHANNELS)]
        results = await asyncio.gather(
            *(channel.communicate(f"{number} " * 2000) for number, channel in enumerate(channels))
        )
        for number, (out, _) in enumerate(results):
            assert out == f"{number} " * 2000, number
        assert [channel.exit_status for channel in channels] == [3] * CHANNELS

        ended = await connection.run("kill -TERM $$")
        assert ended.exit_signal and ended.exit_signal[0] == "TERM", ended
        assert ended.exit_status == -1, ended

        data = os.urandom(3_000_000)
        with open("up", "wb") as file:
            file.write(data)
        name = os.environ["THERE"] + "/asyncssh.bin"
        async with connection.start_sftp_client() as sftp:
            await sftp.put("up", name)
            await sftp.get(name, "down")
            await sftp.remove(name)
        with open("down", "rb") as file:
            assert file.read() == data


asyncio.run(main())
