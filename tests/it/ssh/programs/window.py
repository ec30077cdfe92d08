"""An X client over there: shows the cookie that it was given and prints the reason for which the server refuses it."""
import os, socket, struct, subprocess

display = os.environ["DISPLAY"]
cookie = subprocess.run(["xauth", "list", display], capture_output=True, text=True, check=True).stdout.split()[-1]
name, data = b"MIT-MAGIC-COOKIE-1", bytes.fromhex(cookie)
host, number = display.rsplit(":", 1)
if host == "localhost":
    host = "127.0.0.1"
connection = socket.create_connection((host, 6000 + int(number.split(".")[0])))
pad = lambda text: text + b"\0" * (-len(text) % 4)
connection.sendall(struct.pack("<cBHHHHH", b"l", 0, 11, 0, len(name), len(data), 0) + pad(name) + pad(data))
answer = b""
while piece := connection.recv(64):
    answer += piece
print(answer[8:12].decode())
