# Whatever a client of today insists on is there.
for cipher in chacha20-poly1305@openssh.com aes128-gcm@openssh.com aes256-gcm@openssh.com aes256-ctr; do
  is "$(gw -c "$cipher" -- "echo $cipher")" "$cipher"
done
for exchange in curve25519-sha256 curve25519-sha256@libssh.org diffie-hellman-group16-sha512; do
  is "$(gw -o "KexAlgorithms=$exchange" -- "echo $exchange")" "$exchange"
done
for kind in ssh-ed25519 rsa-sha2-512 rsa-sha2-256; do
  is "$(gw -o "HostKeyAlgorithms=$kind" -o "UserKnownHostsFile=known-$kind" -- "echo $kind")" "$kind"
done
