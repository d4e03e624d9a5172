package s3sink_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Given GOMEMLIMIT, then New takes a quarter of it and logs that. The test runs
// another process, because the limit belongs to the whole process.
func TestNew_MaxMemoryFitsGOMEMLIMIT(t *testing.T) {
	t.Parallel()
	const child = "S3SINK_TEST_MEMORY_CHILD"
	if os.Getenv(child) != "" {
		cfg := new(nullStore).config()
		cfg.MaxMemory = 0
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stdout, nil))
		open(t, cfg)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1", "GOMEMLIMIT=40MiB")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const want = `level=INFO msg="s3sink: MaxMemory is not set" bytes=10485760 `
	if !bytes.Contains(out, []byte(want)) || !strings.Contains(string(out), "limit=41943040 limit_of=GOMEMLIMIT") {
		t.Errorf("want a line with %s, got\n%s", want, out)
	}
}
