# -J: the gateway passes bytes, and the container's own server knows the key.
# needs: sshd
is "$(ssh -F "$CONFIG" -J "$JUMP" inner 'echo inside')" inside
random 4 up
ssh -F "$CONFIG" -J "$JUMP" inner cat <up | cmp - up
