package policy_test

import (
	"os"
	"testing"
)

// TestMain runs the tests. In a process that the script of a test started, it acts
// as the command aws.
func TestMain(m *testing.M) {
	if state := os.Getenv(fakeAWSState); state != "" {
		os.Exit(fakeAWSMain(state, os.Args[1:]))
	}
	os.Exit(m.Run())
}
