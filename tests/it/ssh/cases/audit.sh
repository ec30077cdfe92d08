# ssh-audit finds nothing that it calls a failure.
# needs: edd
code=0
"$(dirname "$PYTHON")/ssh-audit" --skip-rate-test -p "$PORT" 127.0.0.1 >report 2>&1 || code=$?
# 0: well; 2: warnings.
[ "$code" = 0 ] || [ "$code" = 2 ] || fail "ssh-audit ends with $code: $(grep -a fail report || cat report)"
