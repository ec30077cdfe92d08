"""asyncssh: a signal that is sent and noticed over there, one that is died of, and a terminal's interrupt."""
import asyncio, os

import asyncssh


async def main():
    where = {"port": int(os.environ["PORT"]), "username": os.environ["LOGIN"]}
    keys = {"client_keys": [os.environ["IDENTITY"]], "known_hosts": None, "agent_path": None, "config": None}
    async with asyncssh.connect("127.0.0.1", **where, **keys) as connection:
        process = await connection.create_process('trap "echo caught; exit 5" USR1; echo ready; while :; do sleep 0.1; done')
        assert await process.stdout.readline() == "ready\n"
        process.send_signal("USR1")
        assert await process.stdout.readline() == "caught\n"
        await process.wait_closed()
        assert process.exit_status == 5, process.exit_status

        process = await connection.create_process("echo ready; exec sleep 60")
        assert await process.stdout.readline() == "ready\n"
        process.terminate()
        await process.wait_closed()
        assert process.exit_signal and process.exit_signal[0] == "TERM", process.exit_signal

        process = await connection.create_process("echo ready; exec sleep 60", term_type="xterm")
        assert await process.stdout.readline() == "ready\r\n"
        process.stdin.write("\x03")
        await process.wait_closed()
        assert process.exit_signal and process.exit_signal[0] == "INT", (process.exit_signal, process.exit_status)


asyncio.run(main())
