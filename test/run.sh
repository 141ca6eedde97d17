#!/bin/sh
# Runs NAME:COMMAND for each argument, all of them even when one fails, and ends
# with a summary. Fails when one failed.
set -u
cd "$(dirname "$0")/.."
test/setup/sweep.sh
mkdir -p build
summary=
failed=0
for part in "$@"; do
	name=${part%%:*}
	echo "=== $name"
	start=$(date +%s)
	if sh -c "${part#*:}" </dev/null; then
		result=ok
	else
		result=FAILED
		failed=1
	fi
	summary="$summary$(printf '%-12s %-7s %4d s' "$name" $result $(($(date +%s) - start)))
"
done
echo
echo "=== summary"
printf '%s' "$summary"
if [ $failed = 0 ]; then
	echo "all tests passed"
else
	echo "SOME TESTS FAILED"
fi
exit $failed
