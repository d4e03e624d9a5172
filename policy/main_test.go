package policy_test

import (
	"os"
	"testing"
)

// TestMain runs the tests, or, in a process that a test's script started, the
// command aws.
func TestMain(m *testing.M) {
	if state := os.Getenv(fakeAWSState); state != "" {
		os.Exit(fakeAWSMain(state, os.Args[1:]))
	}
	os.Exit(m.Run())
}
