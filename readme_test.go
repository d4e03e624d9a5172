package s3sink_test

import (
	"os"
	"strings"
	"testing"
)

// Given the README, then its first example is a copy of an example that `go
// test` runs.
func TestREADME(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```go\n")
	block, _, _ = strings.Cut(block, "```\n")
	_, body, _ := strings.Cut(string(examples), "func Example() {\n")
	body, _, _ = strings.Cut(body, "\t// Output")
	body = strings.TrimPrefix(strings.ReplaceAll("\n"+body, "\n\t", "\n"), "\n")
	if block != body || block == "" {
		t.Errorf("README.md has\n%s\nexample_test.go has\n%s", block, body)
	}
}
