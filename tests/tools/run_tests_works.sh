#!/bin/bash
# scripts/run-tests: a failing, a missing and a skipped test must all fail it. A small CTest project stands in
# for the real one.
set -u
# ctest's own status for a failure is 8; 1 is ours.
# shellcheck source=tests/tools/expect.bash
. "$(dirname "$0")/expect.bash"
run=$FEDSTILL_SOURCE/scripts/run-tests

# suite LINE ...: a build folder whose CTestTestfile.cmake holds the lines.
suite() {
    rm -rf "$scratch/build"
    mkdir "$scratch/build"
    printf '%s\n' "$@" >"$scratch/build/CTestTestfile.cmake"
}

suite 'add_test(one "true")' 'add_test(two "echo" "7 passed, 0 failed, 3 skipped")'
expect 0 "$run" "$scratch/build"
said '100% tests passed, 0 tests failed out of 2'
said 'golden cases: 7 passed, 0 failed, 3 skipped'
expect 0 "$run" "$scratch/build" -R one
said 'out of 1'

suite 'add_test(one "true")' 'add_test(two "false")'
expect 8 "$run" "$scratch/build"
said '1 tests failed out of 2'

suite
expect 8 "$run" "$scratch/build"
said 'No tests were found'

suite 'add_test(one "true")' 'add_test(two "/no/such/program")'
expect 1 "$run" "$scratch/build"
said 'some tests did not run'

suite 'add_test(one "true")' 'add_test(two "sh" "-c" "exit 77")' 'set_tests_properties(two PROPERTIES SKIP_RETURN_CODE 77)'
expect 1 "$run" "$scratch/build"
said 'some tests did not run'

suite 'add_test(one "true")' 'add_test(two "true")' 'set_tests_properties(two PROPERTIES DISABLED true)'
expect 1 "$run" "$scratch/build"
said 'some tests did not run'

suite 'add_test(one "echo" "[  SKIPPED ] test_of_something")'
expect 1 "$run" "$scratch/build"
said 'these cmocka tests skipped themselves'
said 'test_of_something'
finish
