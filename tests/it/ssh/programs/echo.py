"""Sends its input to a port or a socket, then the end of it, and prints all that comes back."""
import socket, sys, threading

where = sys.argv[1]
if where.isdigit():
    connection = socket.create_connection(("127.0.0.1", int(where)))
else:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(where)


def send():
    while data := sys.stdin.buffer.read1(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


threading.Thread(target=send, daemon=True).start()
while data := connection.recv(65536):
    sys.stdout.buffer.write(data)
