"""paramiko, as programs use it."""
import hashlib, os

import paramiko

# In seconds: a machine that runs tests is busy.
PATIENCE = 120

client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
where = {"port": int(os.environ["PORT"]), "username": os.environ["LOGIN"], "timeout": PATIENCE, "auth_timeout": PATIENCE}
client.connect(
    "127.0.0.1", key_filename=os.environ["IDENTITY"], allow_agent=False, look_for_keys=False, banner_timeout=PATIENCE, **where
)


def run(command, data=b""):
    stdin, stdout, stderr = client.exec_command(command, timeout=PATIENCE)
    stdin.write(data)
    stdin.channel.shutdown_write()
    return stdout.read(), stderr.read(), stdout.channel.recv_exit_status()


assert run("cat; echo err >&2; exit 8", b"x") == (b"x", b"err\n", 8)

# A terminal, its size, and a change of that.
shell = client.invoke_shell(term="vt100", width=91, height=27)
shell.settimeout(PATIENCE)


def until(text):
    seen = b""
    while text not in seen:
        piece = shell.recv(4096)
        assert piece, f"the shell ended: {seen!r}"
        seen += piece
    return seen


shell.send(b"stty size; echo $TERM\n")
until(b"27 91\r\nvt100")
shell.resize_pty(width=100, height=30)
shell.send(b"stty size\n")
until(b"30 100\r\n")
shell.send(b"exit 12\n")
while shell.recv(4096):
    pass
assert shell.recv_exit_status() == 12

sftp = client.open_sftp()
data, name = os.urandom(3_000_000), os.environ["THERE"] + "/paramiko.bin"
with sftp.open(name, "wb") as file:
    file.set_pipelined(True)
    file.write(data)
with sftp.open(name, "rb") as file:
    file.prefetch()
    assert file.read() == data
assert run(f"sha256sum {name}")[0].split()[0].decode() == hashlib.sha256(data).hexdigest()
sftp.remove(name)
client.close()
