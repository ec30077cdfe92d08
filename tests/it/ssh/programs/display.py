"""An X server on this side that only looks at the first bytes: prints the display, then the cookie that a client shows."""
import socket, struct, sys

for number in range(90, 200):
    try:
        listener = socket.create_server(("127.0.0.1", 6000 + number))
        break
    except OSError:
        pass
print(f"127.0.0.1:{number}", flush=True)
connection, _ = listener.accept()


def take(length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            sys.exit("the client hung up")
        data += piece
    return data


order, _, _, _, name_length, data_length, _ = struct.unpack("<cBHHHHH", take(12))
padded = lambda length: (length + 3) // 4 * 4
name = take(padded(name_length))[:name_length]
print(name.decode(), take(padded(data_length))[:data_length].hex(), flush=True)
# Refused, with a reason of four bytes.
connection.sendall(struct.pack("<BBHHH4s", 0, 4, 11, 0, 1, b"seen"))
connection.close()
