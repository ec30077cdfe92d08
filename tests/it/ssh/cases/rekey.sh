# New keys all the time, under load in both directions.
random 8 up
gw -o RekeyLimit=1M -- cat <up | cmp - up
gw -o RekeyLimit=1M -o Ciphers=aes128-ctr -o MACs=hmac-sha2-256-etm@openssh.com -- cat <up | cmp - up
